//! A thought with every token shaded by the progress predicted at it, or at the end of its paragraph,
//! and the place of its cut.

use specexit_engine::Output;
use specexit_eval::page::carried_back;
use specexit_exit::Markers;
use specexit_model::Model;

use super::colours_welcome;

/// Writes thoughts.
pub(crate) struct ShadedThought {
    token_bytes: Vec<Vec<u8>>,
    markers: Markers,
    colours: bool,
}

/// Normal text again.
const RESET: &str = "\u{1b}[0m";
/// What SpecExit never generated.
const SPARED: &str = "\u{1b}[2;9m";
/// Backgrounds of the 256-colour palette for progress from 0 to 1: from blue over grey to green.
const SHADES: [u8; 8] = [17, 18, 24, 30, 29, 28, 34, 40];

impl ShadedThought {
    /// For outputs of `model`; colours only on a terminal, and only where they are welcome.
    pub(crate) fn new(model: &Model, markers: &Markers, terminal: bool) -> Self {
        Self {
            token_bytes: model.tokenizer.token_bytes(model.target.config.vocab_size),
            markers: markers.clone(),
            colours: terminal && colours_welcome(),
        }
    }

    /// The whole thought; what comes after the place where `cut` ended is struck out.
    pub(crate) fn render(&self, whole: &Output, cut: &Output) -> String {
        let end = cut.exit.map_or(usize::MAX, |exit| exit.token_index);
        let early = cut.thinking_tokens < whole.thinking_tokens;
        let mut text = self.legend();
        let shades = carried_back(whole.signals.iter().map(|signals| signals.progress).collect());
        for (i, &id) in whole.token_ids.iter().enumerate() {
            if self.markers.close_ids.contains(&id) {
                break;
            }
            if i == end && early {
                text.push_str(&self.cut_line(cut));
            }
            let progress = shades.get(i).copied().unwrap_or(f32::NAN);
            let bytes = self.token_bytes.get(id as usize).map_or(&[][..], Vec::as_slice);
            self.token(&mut text, &String::from_utf8_lossy(bytes), progress, i >= end && early);
        }
        text.push_str("</think>\n");
        text
    }

    fn legend(&self) -> String {
        if !self.colours {
            return "<think>\n".to_owned();
        }
        let bar: String = SHADES.iter().map(|shade| format!("\u{1b}[48;5;{shade}m ")).collect();
        format!("(background: predicted progress, {bar}{RESET} from 0 to 1)\n<think>\n")
    }

    fn cut_line(&self, cut: &Output) -> String {
        let signals = cut.exit.map(|exit| exit.signals).unwrap_or_default();
        let line = format!(
            "---- SpecExit ends the thought here: confidence {:.2}, progress {:.2}, {:.0} tokens \
             remaining ----",
            signals.confidence, signals.progress, signals.remaining
        );
        if self.colours { format!("\u{1b}[1;33m{line}{RESET}\n\n") } else { format!("{line}\n\n") }
    }

    fn token(&self, text: &mut String, piece: &str, progress: f32, spared: bool) {
        if !self.colours {
            text.push_str(piece);
            return;
        }
        // A background must not run over the end of a line.
        let visible = piece.trim_end_matches('\n');
        let newlines = &piece[visible.len()..];
        let code = if spared {
            SPARED.to_owned()
        } else if progress.is_nan() {
            String::new()
        } else {
            let shade = (progress.clamp(0.0, 1.0) * (SHADES.len() - 1) as f32).round() as usize;
            format!("\u{1b}[48;5;{}m", SHADES[shade])
        };
        text.push_str(&format!("{code}{visible}{RESET}{newlines}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaded(colours: bool) -> ShadedThought {
        let markers = Markers::think(vec![1], vec![2]);
        ShadedThought { token_bytes: vec![], markers, colours }
    }

    #[test]
    fn without_colours_the_text_is_as_it_is() {
        let mut text = String::new();
        shaded(false).token(&mut text, "so.\n\n", 0.5, true);
        assert_eq!(text, "so.\n\n");
        assert_eq!(shaded(false).legend(), "<think>\n");
    }

    #[test]
    fn shades_follow_the_progress_and_end_with_the_line() {
        let mut text = String::new();
        let thought = shaded(true);
        for (progress, spared) in [(0.0, false), (1.0, false), (7.0, false), (f32::NAN, false)] {
            thought.token(&mut text, "a\n", progress, spared);
        }
        thought.token(&mut text, "b", 0.2, true);
        let expected = "\u{1b}[48;5;17ma\u{1b}[0m\n\u{1b}[48;5;40ma\u{1b}[0m\n\u{1b}[48;5;40ma\
                        \u{1b}[0m\na\u{1b}[0m\n\u{1b}[2;9mb\u{1b}[0m";
        assert_eq!(text, expected);
    }
}
