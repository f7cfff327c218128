//! The reference reasoner and its draft head, compiled into the program.
//!
//! `recipes/reference` makes them; `assets/README.md` says what they are.

use specexit_model::Embedded;

/// What `--model` and `--head` call them.
pub(crate) const REFERENCE: &str = "reference";

/// Name and contents of files under `assets`.
macro_rules! files {
    ($($folder:literal / $name:literal),+ $(,)?) => {
        &[$(($name, include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../../assets/", $folder, "/", $name
        )))),+]
    };
}

/// The target.
pub(crate) const REASONER: Embedded = Embedded {
    name: REFERENCE,
    files: files!(
        "reasoner" / "config.json",
        "reasoner" / "generation_config.json",
        "reasoner" / "tokenizer.json",
        "reasoner" / "chat_template.jinja",
        "reasoner" / "model.safetensors",
    ),
};

/// Its draft head with the signal probe, the policy chosen for it, and what calibration promises.
pub(crate) const HEAD: Embedded = Embedded {
    name: REFERENCE,
    files: files!(
        "head" / "config.json",
        "head" / "model.safetensors",
        "head" / "policy.json",
        "head" / "calibration.json",
    ),
};
