//! Stop strings.

use super::begun;

/// Watches answer text for strings that end it.
#[derive(Clone, Debug, Default)]
pub struct Stops {
    stops: Vec<String>,
    /// The beginning of one, perhaps.
    held: String,
}

impl Stops {
    /// Empty strings would end everything at once; they are left out.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new() }
    }

    /// The text that is certain with this one, and whether a stop string ended it; of several the one that
    /// is whole first, and of those the longest, counts. It is not part of the text.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let whole = |stop: &String| Some((self.held.find(stop.as_str())?, stop.len()));
        let found =
            self.stops.iter().filter_map(whole).min_by_key(|&(at, length)| (at + length, at));
        if let Some((at, _)) = found {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return (text, true);
        }
        let open = |stop: &String| begun(self.held.as_bytes(), stop.as_bytes());
        let mut keep = self.stops.iter().map(open).max().unwrap_or(0);
        // A stop string may begin in the middle of nothing: characters are never cut.
        while !self.held.is_char_boundary(self.held.len() - keep) {
            keep += 1;
        }
        let held = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, held), false)
    }

    /// What was held back and is no stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut watch = Stops::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut all = String::new();
        for piece in pieces {
            let (text, stopped) = watch.push(piece);
            all.push_str(&text);
            if stopped {
                return (all, true);
            }
        }
        (all + &watch.finish(), false)
    }

    #[test]
    fn the_first_whole_one_ends_the_text() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), ("a ".to_owned(), true));
        assert_eq!(run(&["END"], &["a EN", "d"]), ("a ENd".to_owned(), false));
        assert_eq!(run(&["bc", "abcd"], &["xabcd"]), ("xa".to_owned(), true));
        assert_eq!(run(&["bc", "abc"], &["xabc"]), ("x".to_owned(), true));
        assert_eq!(run(&["é!"], &["caf", "é", "!"]), ("caf".to_owned(), true));
        assert_eq!(run(&["aab"], &["aaa", "ab"]), ("aa".to_owned(), true));
        assert_eq!(run(&["", "x"], &["abc"]), ("abc".to_owned(), false));
        assert_eq!(run(&[], &["abc"]), ("abc".to_owned(), false));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{1,4}", 0..3),
            cut in 0..24_usize,
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut cut = cut.min(text.len());
            while !text.is_char_boundary(cut) {
                cut += 1;
            }
            prop_assert_eq!(run(&stops, &[&text[..cut], &text[cut..]]), run(&stops, &[&text]));
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, &letters), run(&stops, &[&text]));
        }
    }
}
