//! A toy tokenizer, and a decoding loop that follows the protocol.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;

use specexit_exit::{
    BoundaryRules, Exit, Markers, Phase, Policy, Signals, Thought, ThoughtConfig, TokenId,
    Vocabulary,
};

pub(crate) const TOKENS: &[&str] = &[
    "<think>",
    "</think>",
    "</",
    "think",
    ">",
    ">\n\n",
    "<",
    "x</",
    "y</think>",
    "",
    "\n",
    "\n\n",
    ".\n\n",
    " \n\n",
    "?\n\n",
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "x",
    "y",
    "z",
    " Wait",
    "But",
    "So",
    " Enough",
    ".",
    "<th",
    "ink",
    "\n\n\n",
    ".\n",
    "<think>\n",
    "A",
    "B",
];

/// Tokens that are neither markers, parts of markers, nor newlines.
pub(crate) const WORDS: &[&str] = &["a", "b", "c", "d", "e", "f", "x", "y", "z"];

pub(crate) fn id(text: &str) -> TokenId {
    TOKENS.iter().position(|t| *t == text).unwrap_or_else(|| panic!("no token {text:?}")) as TokenId
}

pub(crate) fn ids(texts: &[&str]) -> Vec<TokenId> {
    texts.iter().map(|text| id(text)).collect()
}

pub(crate) fn bytes(tokens: &[TokenId]) -> Vec<u8> {
    tokens.iter().flat_map(|&t| TOKENS[t as usize].bytes()).collect()
}

pub(crate) fn vocabulary(rules: &BoundaryRules) -> Arc<Vocabulary> {
    let token_bytes = TOKENS.iter().map(|t| t.as_bytes().to_vec()).collect();
    Arc::new(Vocabulary::new(Arc::new(token_bytes), rules))
}

/// The marker as one special token.
pub(crate) fn special() -> Markers {
    Markers::think(ids(&["<think>"]), ids(&["</think>"]))
}

/// The marker as three ordinary tokens.
pub(crate) fn spelled() -> Markers {
    Markers::think(ids(&["<", "think", ">"]), ids(&["</", "think", ">"]))
}

pub(crate) fn config(policy: Option<Policy>) -> ThoughtConfig {
    ThoughtConfig { policy, budget: None, loops: None, closing: Vec::new(), markers: special() }
}

pub(crate) fn budget(budget: usize) -> ThoughtConfig {
    ThoughtConfig { budget: Some(budget), ..config(None) }
}

pub(crate) fn thought(config: ThoughtConfig, phase: Phase) -> Thought {
    let rules = config.policy.as_ref().map(|p| p.boundaries.clone()).unwrap_or_default();
    Thought::new(Arc::new(config), vocabulary(&rules), phase)
}

pub(crate) fn signals(confidence: f32, progress: f32, remaining: f32) -> Signals {
    Signals { confidence, progress, remaining }
}

/// Signals that pass every published threshold.
pub(crate) const SURE: Signals = Signals { confidence: 0.95, progress: 0.9, remaining: 10.0 };
/// Signals that pass none.
pub(crate) const UNSURE: Signals = Signals { confidence: 0.1, progress: 0.1, remaining: 900.0 };

#[track_caller]
pub(crate) fn assert_close(found: Signals, wanted: Signals) {
    let near = |a: f32, b: f32| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    assert!(
        near(found.confidence, wanted.confidence)
            && near(found.progress, wanted.progress)
            && near(found.remaining, wanted.remaining),
        "{found:?} is not near {wanted:?}"
    );
}

/// What a decoding loop produced.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) exit: Option<Exit>,
    pub(crate) forced: Vec<TokenId>,
    pub(crate) thought: Thought,
}

/// Plays a fixed stream through rounds whose accepted runs have the given lengths (repeated), and
/// stops at the first forced exit. `after_round` sees the state and the output after each round.
pub(crate) fn play(
    thought: &Thought,
    stream: &[(TokenId, Signals)],
    runs: &[usize],
    mut after_round: impl FnMut(&Thought, &[TokenId]),
) -> Output {
    let mut thought = thought.clone();
    let mut lengths = runs.iter().copied().cycle();
    // `stream[..done]` is in the cache, `stream[done]` is the root.
    let mut done = 0;
    let mut run_length = 0;
    while done + run_length < stream.len() {
        let (run, signals): (Vec<_>, Vec<_>) =
            stream[done..done + run_length].iter().copied().unzip();
        let verdict = thought.commit(&run, &signals, stream[done + run_length].0);
        assert!(verdict.keep <= run.len());
        assert!(verdict.force.is_some() || verdict.keep == run.len());
        done += verdict.keep;
        let mut tokens: Vec<_> = stream[..done].iter().map(|(token, _)| *token).collect();
        if verdict.force.is_some() {
            let forced = thought.forced().to_vec();
            assert_eq!(thought.exit().copied(), verdict.force);
            assert_eq!(thought.phase(), Phase::Answer);
            assert_eq!(verdict.force.map(|exit| exit.token_index), Some(tokens.len()));
            tokens.extend(&forced);
            after_round(&thought, &tokens);
            return Output { tokens, exit: verdict.force, forced, thought };
        }
        tokens.push(stream[done].0);
        after_round(&thought, &tokens);
        run_length = lengths.next().unwrap_or(1).max(1).min(stream.len() - 1 - done);
        if run_length == 0 {
            break;
        }
    }
    let tokens: Vec<_> = stream.iter().map(|(token, _)| *token).collect();
    Output { exit: thought.exit().copied(), tokens, forced: Vec::new(), thought }
}

/// Counts thinking tokens by plain text search; `phase` is where the prompt left off.
pub(crate) fn count_by_search(tokens: &[TokenId], phase: Phase) -> usize {
    let text = bytes(tokens);
    let find = |from: usize, marker: &[u8]| {
        text[from..].windows(marker.len()).position(|w| w == marker).map(|at| from + at)
    };
    let open = match phase {
        Phase::Answer => return 0,
        Phase::Thinking => 0,
        Phase::Before => match find(0, b"<think>") {
            Some(at) => at + b"<think>".len(),
            None => return 0,
        },
    };
    let close = find(open, b"</think>");
    let mut start = 0;
    let mut count = 0;
    let mut opened = phase == Phase::Thinking;
    for &token in tokens {
        let length = TOKENS[token as usize].len();
        let before_close = match close {
            Some(close) if length == 0 => start < close + b"</think>".len(),
            Some(close) => start < close,
            None => true,
        };
        count += usize::from(opened && start >= open && before_close);
        start += length;
        opened = opened || start >= open;
    }
    count
}
