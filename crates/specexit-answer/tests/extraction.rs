//! Where models put their answers.

use specexit_answer::{Answer, AnswerKind, extract, gold_answer, matches_gold};

fn found(text: &str, kind: AnswerKind) -> Option<(AnswerKind, String)> {
    extract(text, kind).map(|answer| (answer.kind, answer.normalised))
}

#[track_caller]
fn check(kind: AnswerKind, cases: &[(&str, &str)]) {
    for (text, wanted) in cases {
        let found = found(text, kind);
        let normalised = found.as_ref().map(|(_, n)| n.as_str());
        assert_eq!(normalised, Some(*wanted), "{kind} in {text:?}: {found:?}");
    }
}

#[test]
fn numbers() {
    check(
        AnswerKind::Number,
        &[
            ("So she makes \\boxed{18} dollars.", "18"),
            ("\\boxed{18 \\text{ dollars}}", "18"),
            ("\\boxed{\\$18}", "18"),
            ("\\boxed{x = 18}", "18"),
            ("\\boxed{\\text{The total is } 18}", "18"),
            ("First \\boxed{3}, then \\boxed{4}.", "4"),
            ("\\boxed{} and \\boxed{4}, later \\boxed{ }", "4"),
            ("We get \\boxed{12 and 13", "13"),
            ("3 + 4 = 7\n#### 7", "7"),
            ("blah 99\n#### $1,200.00", "1200"),
            ("#### 2. Then multiply\n3 * 4 = 12", "12"),
            ("#### Step 2\nSo it is 5 apples and 2 pears.", "2"),
            ("The answer is 18. Since 3 * 6 = 18, and 20 is more.", "18"),
            ("The answer is $12 \\times 3 = 36$.", "36"),
            ("The answer is 12 + 6 = 18 dollars.", "18"),
            ("The final answer is: **1,234.50**.", "1234.5"),
            ("**Answer:** $1,234.50.", "1234.5"),
            ("**Final Answer**\n\n42", "42"),
            ("### Answer\n\\(42\\)\n", "42"),
            ("Answer: -7", "-7"),
            ("Answer: \u{2212}7", "-7"),
            ("answer = 3/4", "3/4"),
            ("The answer is 5. No wait, the answer is 6.", "6"),
            ("The answer is not 5. The answer is 6.", "6"),
            ("The answer is 6, I am sure the answer is right.", "6"),
            ("The answer to the question is 9.", "9"),
            ("The answer should be 9 hours", "9"),
            ("She answered 5 of 7 questions.", "7"),
            ("Janet sells 9 eggs for $18 every day.", "18"),
            ("The total is $18/day.", "18"),
            ("It costs -$5.", "-5"),
            ("16 - 3 - 4 = 9.", "9"),
            ("10-15", "15"),
            ("x = - 5", "-5"),
            ("That is 54 cm^2", "54"),
            ("so a_2 = 7, where x1 is free", "7"),
            ("There are 10{,}080 ways", "10080"),
            ("There are 1,234,567 of 12 kinds... no: 1,234,567.", "1234567"),
            ("In total 2 1/2 cups", "2 1/2"),
            ("it is \\frac{3}{4} of it", "\\frac{3}{4}"),
            ("about 3.2 \\times 10^4 people", "3.2*10^{4}"),
            ("about 3.2e4 people", "3.2*10^{4}"),
            ("50% of them", "50"),
            ("<think>The answer is 5. 5!</think>\nIt is 6.", "6"),
            ("42", "42"),
        ],
    );
    for text in ["", "no number here", "<think>it is 5</think> I do not know", "x1 and y_2"] {
        assert_eq!(extract(text, AnswerKind::Number), None, "{text:?}");
    }
}

#[test]
fn boxes_and_statements() {
    check(
        AnswerKind::Boxed,
        &[
            ("$\\boxed{\\frac{1}{2}}$", "\\frac{1}{2}"),
            ("$\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}.$", "(3,\\frac{\\pi}{2})"),
            ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
            ("\\boxed {7}", "7"),
            ("\\boxed 7$", "7"),
            ("\\fbox{7}", "7"),
            ("\\boxed{\\boxed{7}}", "7"),
            ("{ { \\boxed{7} } stray } \\boxed{8", "7"),
            ("\\boxed{54}\\text{ cm}^2.$", "54"),
            ("\\boxed{\\text{Evelyn}}", "evelyn"),
            ("#### \\frac{3}{4}", "\\frac{3}{4}"),
            ("The answer is $x^2+1$.", "x^{2}+1"),
            ("The answer is \\(\\frac{1}{2}\\).", "\\frac{1}{2}"),
            ("The answer is\n\\[ x = 5 \\]\nas wanted.", "5"),
            ("The final answer is (3, 4).", "(3,4)"),
            ("The answer is Evelyn.", "evelyn"),
            ("Final answer: $\\sqrt{51}$", "\\sqrt{51}"),
            ("**Answer**: even", "even"),
            ("The answers are $x = 1$ and $x=2$.", "1,2"),
            ("**Answer**\nJanet makes $18 per day.", "18"),
            ("The answer is **$\\frac{3}{4}$ hours**.", "\\frac{3}{4}"),
            ("Answer: $18", "18"),
            ("The answer is $11,\\! 111,\\! 100$. Done", "11111100"),
            ("The answer is $\\$32,\\!348$.", "32348"),
            ("The answer is 6!", "6"),
        ],
    );
    assert_eq!(extract("In the end x is 5.", AnswerKind::Boxed), None);
    assert_eq!(extract("\\boxed{truncated", AnswerKind::Boxed), None);
}

#[test]
fn options() {
    check(
        AnswerKind::Option,
        &[
            ("\\boxed{B}", "B"),
            ("\\boxed{\\text{(B)}}", "B"),
            ("\\boxed{\\textbf{(B) } 42}", "B"),
            ("\\boxed{b}", "B"),
            ("The correct answer is **(C) 12**.", "C"),
            ("The correct answer is:\n\n**C. 12**", "C"),
            ("The answer is (B).", "B"),
            ("The answer is (b) 42", "B"),
            ("The answer is B.", "B"),
            ("The answer is B because it rains.", "B"),
            ("answer: B", "B"),
            ("Answer: **B**", "B"),
            ("**Answer: C**", "C"),
            ("Answer: B) rocks", "B"),
            ("The correct answer is option D, not A.", "D"),
            ("The answer is A", "A"),
            ("Answer: $B$", "B"),
            ("Answer:\n\nC", "C"),
            ("The answer is a dog, which is option C.", "C"),
            ("The answer is A dog, so (C).", "C"),
            ("(A) rocks (B) water. It must be (A)", "A"),
            ("I choose choice E", "E"),
            ("B. Water freezes.", "B"),
            ("B", "B"),
            ("(b)", "B"),
            ("**B**", "B"),
            ("It must be **B**, clearly", "B"),
            ("#### D", "D"),
            ("<think>(A)</think> The answer is (C).", "C"),
        ],
    );
    for text in ["", "I do not know", "A. rocks\nB. water", "Because a dog runs."] {
        assert_eq!(extract(text, AnswerKind::Option), None, "{text:?}");
    }
}

#[test]
fn automatically() {
    let kinds = [
        ("\\boxed{42}", AnswerKind::Number, "42"),
        ("\\boxed{x+1}", AnswerKind::Boxed, "x+1"),
        ("\\boxed{C}", AnswerKind::Option, "C"),
        ("The answer is (B).", AnswerKind::Option, "B"),
        ("The answer is 3 apples.", AnswerKind::Number, "3"),
        ("The answer is even.", AnswerKind::Boxed, "even"),
        ("So 3 and then 4.", AnswerKind::Number, "4"),
        ("B", AnswerKind::Option, "B"),
    ];
    for (text, kind, normalised) in kinds {
        assert_eq!(found(text, AnswerKind::Auto), Some((kind, normalised.to_owned())), "{text:?}");
    }
}

#[test]
fn against_gold() {
    let cases = [
        // GSM8K, MATH, AMC, ARC as their files write the reference.
        ("She makes $18 every day.", "… <<9*2=18>>18 every day.\n#### 18", Some(true)),
        ("The answer is 1200.", "#### 1,200", Some(true)),
        ("The answer is 1,200 dollars.", "1200", Some(true)),
        ("so \\boxed{0.5}", "\\frac{1}{2}", Some(true)),
        ("so \\boxed{\\frac{2}{4}}", "\\frac{1}{2}", Some(true)),
        ("We get $\\boxed{36}$.", "36.0", Some(true)),
        ("We get 36.", "36.0", Some(true)),
        ("We get 63.", "36.0", Some(false)),
        ("The answer is (B).", "B", Some(true)),
        ("I think B. Water", "B", None),
        ("The answer is b).", "B", Some(true)),
        ("The answer is (C).", "B", Some(false)),
        ("\\boxed{6\\sqrt{2}}", "6", Some(false)),
        ("\\boxed{p-q}", "p - q", Some(true)),
        ("\\boxed{\\text{Evelyn}}", "\\text{Evelyn}", Some(true)),
        ("I cannot say.", "36.0", None),
        ("<think>36</think>", "36.0", None),
        ("36", "", None),
    ];
    for (text, gold, wanted) in cases {
        assert_eq!(matches_gold(text, gold, AnswerKind::Auto), wanted, "{text:?} for {gold:?}");
    }
    assert_eq!(matches_gold("\\boxed{6\\sqrt{2}}", "6", AnswerKind::Number), Some(false));
}

#[test]
fn gsm8k_solutions_equal_themselves() {
    let solutions = [
        "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.\nShe makes 9 * 2 = $<<9*2=18>>18 every day at the farmer\u{2019}s market.\n#### 18",
        "It takes 2/2=<<2/2=1>>1 bolt of white fiber\nSo the total amount of fabric is 2+1=<<2+1=3>>3 bolts of fabric\n#### 3",
        "So the new value of the house is 120,000+80,000=$<<120000+80000=200000>>200,000\nSo he made a profit of 200,000-130,000=$<<200000-130000=70000>>70,000\n#### 70000",
        "Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\nWorking 50 minutes, she earned 0.2 x 50 = $<<0.2*50=10>>10.\n#### 10",
        "There were 850,000 of them.\n#### 850,000",
        "It fell by seven degrees.\n#### -7",
        "In all 109,200,000 grains\n#### 109,200,000",
    ];
    for solution in solutions {
        for kind in [AnswerKind::Auto, AnswerKind::Number] {
            assert_eq!(matches_gold(solution, solution, kind), Some(true), "{solution}");
            let gold = gold_answer(solution, kind).expect("gold");
            let written = solution.rsplit("#### ").next().expect("a number");
            assert_eq!(gold.text, written);
            assert_eq!(gold.normalised, written.replace(',', ""));
        }
    }
}

#[test]
fn answers_survive_json() {
    let answer = extract("\\boxed{\\frac12}", AnswerKind::Auto).expect("an answer");
    let json = serde_json::to_string(&answer).expect("json");
    assert_eq!(json, r#"{"kind":"number","text":"\\frac12","normalised":"\\frac{1}{2}"}"#);
    assert_eq!(serde_json::from_str::<Answer>(&json).expect("answer"), answer);
    for kind in AnswerKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
        assert_eq!(serde_json::to_string(&kind).expect("json"), format!("\"{kind}\""));
    }
    let message = "letter".parse::<AnswerKind>().expect_err("unknown").to_string();
    assert!(message.contains("letter") && message.contains("boxed"), "{message}");
}
