//! The answer in a generated text: what comes after the thought.

use specexit_engine::Phase;
use specexit_exit::Markers;

/// What follows the end-of-thinking marker; the whole text where no thought was opened, and nothing
/// where one was opened and never closed.
#[must_use]
pub(crate) fn answer_part<'t>(text: &'t str, phase: Phase, markers: &Markers) -> &'t str {
    let open = String::from_utf8_lossy(&markers.open);
    let close = String::from_utf8_lossy(&markers.close);
    let inside = match phase {
        Phase::Answer => return text,
        Phase::Thinking => text,
        Phase::Before => match text.split_once(&*open) {
            Some((_, inside)) => inside,
            None => return text,
        },
    };
    inside.split_once(&*close).map_or("", |(_, answer)| answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_follows_the_first_thought() {
        let markers = Markers::think(vec![1], vec![2]);
        let answer = |text, phase| answer_part(text, phase, &markers);
        assert_eq!(answer("<think>a</think>b</think>c", Phase::Before), "b</think>c");
        assert_eq!(answer("a</think>b", Phase::Thinking), "b");
        assert_eq!(answer("a</think>b", Phase::Before), "a</think>b");
        assert_eq!(answer("<think>a", Phase::Before), "");
        assert_eq!(answer("a", Phase::Thinking), "");
        assert_eq!(answer("no thought", Phase::Before), "no thought");
        assert_eq!(answer("<think>x</think>y", Phase::Answer), "<think>x</think>y");
    }
}
