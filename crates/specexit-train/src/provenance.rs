//! Which model, program and options a file comes from.

use serde::{Deserialize, Serialize};
use specexit_model::{Model, ModelText};

/// The version of this program, as recorded in files.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// The identity of a model, as files record it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// What the user called it.
    pub name: String,
    /// Hash of its weights.
    pub hash: String,
    /// Hash of its tokenizer.
    pub tokenizer_hash: String,
}

impl ModelId {
    /// The identity of a loaded model.
    pub fn of(model: &Model) -> Self {
        Self {
            name: model.name.clone(),
            hash: model.hash.clone(),
            tokenizer_hash: model.tokenizer.hash(),
        }
    }

    /// The identity of a model that decodes elsewhere.
    pub fn of_text(model: &ModelText) -> Self {
        Self {
            name: model.name.clone(),
            hash: model.hash.clone(),
            tokenizer_hash: model.tokenizer.hash(),
        }
    }

    /// The first field in which a file's model differs from the loaded one: its name, the file's
    /// value and the loaded one's. The name the user gave it does not count.
    pub(crate) fn difference(&self, loaded: &Self) -> Option<(&'static str, String, String)> {
        let fields = [
            ("model.hash", &self.hash, &loaded.hash),
            ("model.tokenizer_hash", &self.tokenizer_hash, &loaded.tokenizer_hash),
        ];
        let differs = fields.into_iter().find(|(_, file, loaded)| file != loaded);
        differs.map(|(field, file, loaded)| (field, file.clone(), loaded.clone()))
    }
}

/// A seed for one part of a seeded run: the same parts give the same seed on any machine.
pub(crate) fn derived_seed(seed: u64, parts: &[&str]) -> u64 {
    let mut hasher = specexit_model::hash::Hasher::new();
    hasher.number(seed);
    parts.iter().for_each(|part| hasher.text(part));
    // The first 16 hexadecimal digits are 64 bits.
    u64::from_str_radix(&hasher.finish()[..16], 16).unwrap_or(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_depend_on_every_part() {
        let seeds = [
            derived_seed(0, &["a", "b"]),
            derived_seed(1, &["a", "b"]),
            derived_seed(0, &["ab", ""]),
            derived_seed(0, &["a"]),
        ];
        let distinct: std::collections::HashSet<u64> = seeds.into_iter().collect();
        assert_eq!(distinct.len(), 4);
        assert_eq!(derived_seed(0, &["a", "b"]), seeds[0]);
    }
}
