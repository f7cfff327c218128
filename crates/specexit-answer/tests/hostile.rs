//! No text may panic or take long.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use specexit_answer::{AnswerKind, equal, extract, gold_answer, matches_gold};

/// Pieces that mean something to some part of the crate.
const PIECES: &[&str] = &[
    "\\boxed{",
    "}",
    "{",
    "\\frac",
    "\\frac{1}{2}",
    "\\frac12",
    "\\sqrt",
    "\\sqrt[3]{",
    "\\text{",
    "\\left(",
    "\\right)",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "\\begin{array}{cc}",
    "\\\\",
    "&",
    "#### ",
    "answer is ",
    "Answer: ",
    "the answers are",
    "\n",
    " ",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "**",
    "1",
    "23",
    "1,234",
    ",",
    ".",
    ".5",
    "-",
    "−",
    "+",
    "*",
    "/",
    "=",
    "^",
    "_",
    "^{2}",
    "e5",
    "10^",
    "\\times",
    "%",
    "\\%",
    "°",
    "\\circ",
    "x",
    "ab",
    "word",
    "(",
    ")",
    "[",
    "]",
    "(B)",
    "B.",
    "option C",
    "\\pm",
    "\\cup",
    "\\in",
    "\\{",
    "\\}",
    "\\infty",
    "|",
    "!",
    "</think>",
    "é",
    "💡",
    "½",
    "√",
    "\\",
    "\\!",
    "\\log_",
    "\\sin",
    " and ",
    " or ",
    "cm",
    " dollars",
    "0",
    "00",
    "\\over ",
    "\\overline{",
    ".\\overline{3}",
    "\\lfloor",
    "\\rfloor",
    "\\binom{5}{2}",
    "\\setminus",
    "\\cap",
    "\\mathbb{R}",
    "\\emptyset",
    "\\mp",
    "\\langle",
    "<",
    "\\le ",
    "≥",
    "\\ne",
    ";",
    "x=",
    "y=",
    "(x,y)=",
    " million",
    "sqrt(",
    "pi",
    "infinity",
    "\\sin^{-1}",
    "^(",
    "^-",
    "i",
    "e^",
    " square ",
    "\\text{ m}",
    " per ",
    "\\$",
    "340282366920938463463374607431768211456",
    "\u{200b}",
];

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|p| p.concat()),
        any::<String>(),
        "[ -~é−½]{0,60}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(a in any_text(), b in any_text()) {
        for kind in AnswerKind::ALL {
            let found = extract(&a, kind);
            if let Some(found) = &found {
                prop_assert_ne!(found.kind, AnswerKind::Auto);
                prop_assert!(!found.text.is_empty());
            }
            let _ = matches_gold(&a, &b, kind);
            if let (Some(left), Some(right)) = (gold_answer(&a, kind), gold_answer(&b, kind)) {
                prop_assert_eq!(equal(&left, &right), equal(&right, &left));
            }
        }
    }

    #[test]
    fn an_answer_equals_itself(text in any_text()) {
        for kind in AnswerKind::ALL {
            if let Some(found) = extract(&text, kind) {
                prop_assert!(found.normalised.is_empty() || equal(&found, &found));
            }
        }
    }

    #[test]
    fn numbers_are_read_back(whole in 0_u32..2_000_000, cents in 0_u32..100, negative: bool) {
        let sign = if negative { "-" } else { "" };
        let plain = format!("{sign}{whole}.{cents:02}");
        let digits = whole.to_string();
        let groups: Vec<String> = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
            .collect();
        let grouped = groups.join(",");
        for text in [
            format!("The answer is {sign}${grouped}.{cents:02}."),
            format!("so it is {sign}{grouped}.{cents:02} dollars."),
            format!("**Answer:** {sign}\\${}.{cents:02}", groups.join(",\\!")),
            format!("\\boxed{{{sign}{}.{cents:02}}}", groups.join("{,}")),
            format!("#### {plain}"),
        ] {
            prop_assert_eq!(matches_gold(&text, &plain, AnswerKind::Number), Some(true), "{}", text);
        }
    }
}

#[test]
fn a_megabyte_of_anything_is_quick() {
    let million = 1_000_000;
    let nested = format!("{}7{}", "\\boxed{".repeat(million / 8), "}".repeat(million / 8));
    let texts = [
        "{".repeat(million),
        "}".repeat(million),
        "{}".repeat(million / 2),
        "\\boxed{".repeat(million / 7),
        nested,
        "answer is ".repeat(million / 10),
        "answer ".repeat(million / 7),
        "answer\n".repeat(million / 7),
        "#### \n".repeat(million / 6),
        "#### 1. a\n".repeat(million / 10),
        "1,".repeat(million / 2),
        "1,234".repeat(million / 5),
        "1/".repeat(million / 2),
        "1 ".repeat(million / 2),
        "9".repeat(million),
        "a1".repeat(million / 2),
        "x".repeat(million),
        "\\frac{".repeat(million / 6),
        "(A)".repeat(million / 3),
        "option ".repeat(million / 7),
        "**A".repeat(million / 3),
        "A. \n".repeat(million / 4),
        "$".repeat(million),
        "-".repeat(million),
        "\\".repeat(million),
        " ".repeat(million),
        "é".repeat(million / 2),
        format!("\\boxed{{{}}}", "(".repeat(million)),
        format!("\\boxed{{{}}}", "1,".repeat(million / 2)),
        format!("The answer is {}", "\\sqrt{".repeat(million / 6)),
    ];
    for text in &texts {
        let start = Instant::now();
        for kind in AnswerKind::ALL {
            let _ = matches_gold(text, text, kind);
        }
        let name = text.get(..20).unwrap_or("");
        assert!(start.elapsed() < Duration::from_secs(5), "{name:?} took {:?}", start.elapsed());
    }
    // Just short enough to be compared as structures.
    for piece in [
        "(",
        "(1,",
        "\\frac{",
        "\\{",
        "|",
        "-",
        "\\sqrt{",
        "1,",
        "x",
        "\\sin",
        "{",
        "\\pm",
        "!",
        "x<",
        "\\cup",
        "0.\\overline{1}",
        "^(",
        "\\text{m}",
        "x=1,",
    ] {
        let text = piece.repeat(1990 / piece.len());
        let other = format!("{text}1");
        let start = Instant::now();
        let read = |text: &str| gold_answer(text, AnswerKind::Boxed).expect("an answer");
        let _ = equal(&read(&text), &read(&other));
        assert!(start.elapsed() < Duration::from_secs(2), "{piece:?} took {:?}", start.elapsed());
    }
}
