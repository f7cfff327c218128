//! Where the target decodes: in this process, or on a server.

use std::time::Duration;

use specexit_engine::EngineOptions;
use specexit_model::{ModelSource, ModelText};
use specexit_train::{Completer, Endpoint, EndpointOptions};

use super::model::{ModelChoice, engine, source};
use crate::failure::usage;
use crate::low::{EndpointArgs, ModelArgs};

/// What continues prompts, and how many at a time.
pub(crate) struct Decoding {
    place: Place,
    /// Continuations asked for together.
    pub(crate) batch: usize,
}

enum Place {
    Here(ModelChoice),
    Server(ModelSource, EndpointOptions),
}

impl Decoding {
    /// What the flags say; `batch` is the flag of that name.
    pub(crate) fn new(
        model: &ModelArgs,
        endpoint: EndpointArgs,
        batch: Option<usize>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let Some(url) = endpoint.endpoint else {
            if batch == Some(0) {
                return usage("--batch is 0; at least one is needed");
            }
            let batch = batch.unwrap_or(EngineOptions::default().max_batch);
            return Ok(Self { place: Place::Here(ModelChoice::new(model)?), batch });
        };
        let here = [
            ("--batch", batch.is_some()),
            ("--threads", model.threads.is_some()),
            ("--f32", model.f32),
            ("--kv-cache", model.kv_cache.is_some()),
        ];
        if let Some((flag, _)) = here.into_iter().find(|(_, given)| *given) {
            return usage(format!("{flag} does not apply to --endpoint, where the server decodes"));
        }
        let default = EndpointOptions::default();
        let concurrency = endpoint.concurrency.unwrap_or(default.concurrency);
        if concurrency == 0 {
            return usage("--concurrency is 0; at least one is needed");
        }
        let timeout = endpoint.timeout.map_or(default.timeout, Duration::from_secs);
        if timeout.is_zero() {
            return usage("--timeout is 0; give the server at least a second");
        }
        let options = EndpointOptions {
            url,
            model: endpoint.endpoint_model,
            api_key: endpoint.api_key_env.map(|name| key(&name)).transpose()?,
            concurrency,
            retries: endpoint.retries.unwrap_or(default.retries),
            timeout,
            retokenize: endpoint.retokenize,
            seed,
            ..default
        };
        Ok(Self { place: Place::Server(source(&model.model)?, options), batch: concurrency })
    }

    /// Loads the model, or what a server does not do for it.
    pub(crate) fn open(self) -> anyhow::Result<(ModelText, Box<dyn Completer>)> {
        match self.place {
            Place::Here(model) => {
                let model = model.load()?;
                let engine = engine(&model, None, self.batch)?;
                Ok((model.text(), Box::new(engine)))
            }
            Place::Server(source, options) => {
                let text = ModelText::load(&source)?;
                let endpoint = Endpoint::new(options, text.clone())?;
                Ok((text, Box::new(endpoint)))
            }
        }
    }
}

fn key(variable: &str) -> anyhow::Result<String> {
    match std::env::var(variable) {
        Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
        _ => usage(format!("--api-key-env names {variable}, which holds no key")),
    }
}
