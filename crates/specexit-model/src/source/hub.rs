//! Models of the Hugging Face hub, through its own client and into its own cache.

use std::path::PathBuf;

use hf_hub::{HFClientSync, HFError};

use super::unloadable;
use crate::error::Result;

/// The files of a repository that a model is made of; everything else stays where it is.
const WANTED: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.*",
    "additional_chat_templates/*",
    // The weights, one file or shards, and their index.
    "model*.safetensors*",
];

/// Downloads what is not in the cache yet; the folder that holds the model.
///
/// Cache and token are those of every Hugging Face tool (`HF_HOME`, `HF_TOKEN`, …).
pub(super) fn download(id: &str) -> Result<PathBuf> {
    let (owner, name) = id.split_once('/').unwrap_or(("", id));
    let client = HFClientSync::new()
        .map_err(|error| unloadable(id, &format!("the hub client does not start ({error})")))?;
    let repository = client.model(owner, name);
    let wanted: Vec<String> = WANTED.into_iter().map(str::to_owned).collect();
    let online = repository.snapshot_download().allow_patterns(wanted.clone()).send();
    online.or_else(|error| {
        // Without a network a model that was loaded before still loads.
        let cached =
            repository.snapshot_download().allow_patterns(wanted).local_files_only(true).send();
        cached.map_err(|_| unloadable(id, &sentence(&error)))
    })
}

/// Why the hub did not give the model, and what to do.
fn sentence(error: &HFError) -> String {
    match error {
        HFError::RepoNotFound { .. } => {
            "there is no such folder here and no such model on the hub; \
                                         check the spelling, and HF_TOKEN if it is private"
                .to_owned()
        }
        HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
            "the hub wants a login; accept the model's terms on its page and set HF_TOKEN"
                .to_owned()
        }
        other => format!(
            "it is not a folder here, and the hub could not be asked ({other}); check the network, \
             or download the model and give its folder"
        ),
    }
}
