//! Prompts as the engine sees them.

use specexit_exit::{Markers, Phase};

/// Where in a thought a rendered prompt leaves off, read from how its text ends: right after an opening
/// marker, after a closing one (templates with thinking switched off write both), or before any.
pub fn phase_of_prompt(prompt: &str, markers: &Markers) -> Phase {
    let text = prompt.trim_end().as_bytes();
    if text.ends_with(&markers.open) {
        Phase::Thinking
    } else if text.ends_with(&markers.close) {
        Phase::Answer
    } else {
        Phase::Before
    }
}
