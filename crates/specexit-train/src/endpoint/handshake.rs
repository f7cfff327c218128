//! What is made sure of before any work: the right model, the same tokens, and all that will be asked
//! for.

use specexit_engine::{Sampling, TokenId};
use specexit_model::ModelText;

use super::EndpointOptions;
use super::pool::Line;
use super::wire::{Body, IdPlace, Prompt, Reply, models};
use crate::completer::{Needs, TokenIds};
use crate::error::{Result, TrainError};

/// A text in which tokenizers differ: digits, spaces, newlines, accents, scripts, code, and the markers.
const PROBE: &str = "<think>\nLet me see: 12345 + 67890 = 80,235.\n\n  naïve café — 東京 🙂\tfoo_bar(x);\n\
                     </think>\n\nThe answer is ";
/// New tokens of a probe that compares ways of sampling.
const COMPARED: usize = 6;
/// A temperature at which no two draws of several tokens are equal by chance.
const HOT: f32 = 5.0;
/// Difference of two log probabilities that batching and rounding on a server explain.
const NOISE: f32 = 0.1;

/// What is known of a server that passed.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The name under which it has the model.
    pub(super) model: String,
    /// Where its ids are; `None` when its texts are tokenised here.
    pub(super) ids: Option<IdPlace>,
    /// Most tokens of prompt and output.
    pub(super) context: usize,
}

impl Session {
    pub(super) fn token_ids(&self) -> TokenIds {
        match self.ids {
            Some(_) => TokenIds::Returned,
            None => TokenIds::Retokenized,
        }
    }
}

/// Asks the server what it is.
pub(super) fn shake(
    line: &Line,
    options: &EndpointOptions,
    text: &ModelText,
    needs: &Needs,
) -> Result<Session> {
    if options.retokenize {
        check_retokenize(needs)?;
    }
    let (model, context) = choose_model(line, options)?;
    let context = context.unwrap_or(usize::MAX).min(text.config.max_position_embeddings);
    let probe = Probe { line, model: &model, ids: text.tokenizer.encode(PROBE, false)? };
    probe.same_tokenizer(text)?;
    let greedy = probe.complete(&Sampling::greedy(), COMPARED)?;
    probe.prompt_is_kept(&greedy)?;
    let ids = match (&greedy.ids, options.retokenize) {
        (_, true) => None,
        (Some((place, _)), false) => Some(*place),
        (None, false) => {
            return Err(line.error(
                "does not return the token ids of its output, which traces need; use a server that \
                 does (vLLM and SGLang by return_token_ids, llama-server with log probabilities), or \
                 have its text tokenised anew with retokenize",
            ));
        }
    };
    if let Some(option) = needs.logprobs
        && greedy.logprobs.is_none()
    {
        return Err(refused(
            line,
            option,
            "needs log probabilities, which the server does not send",
        ));
    }
    probe.sampling(needs, &greedy)?;
    if needs.scores {
        probe.scores()?;
    }
    Ok(Session { model, ids, context })
}

/// Tokens that the server never named have neither probabilities nor a number that limits apply to.
fn check_retokenize(needs: &Needs) -> Result<()> {
    let problem =
        "does not go together with retokenize, which does not know the server's own tokens";
    match (needs.logprobs, needs.token_limit) {
        (Some(option), _) | (None, Some(option)) => Err(TrainError::option(option, problem)),
        (None, None) => Ok(()),
    }
}

fn refused(line: &Line, option: &'static str, problem: &str) -> TrainError {
    TrainError::option(option, format!("{problem} ({})", line.api.url("completions")))
}

/// The name of the model on the server, and its context.
fn choose_model(line: &Line, options: &EndpointOptions) -> Result<(String, Option<usize>)> {
    let listed = line.call("models", 0, |api| api.get("models"))?;
    let url = || line.api.url("models");
    let error = |problem: String| TrainError::Endpoint { url: url(), problem };
    let listed = models(&listed).ok_or_else(|| error("does not list models".to_owned()))?;
    let names = || {
        let names: Vec<&str> = listed.iter().flat_map(|m| &m.names).map(String::as_str).collect();
        names.join(", ")
    };
    match &options.model {
        Some(name) => {
            let found = listed.iter().find(|model| model.names.contains(name));
            found.map(|model| (name.clone(), model.context)).ok_or_else(|| {
                error(format!("does not have the model {name}; it has [{}]", names()))
            })
        }
        None => match &listed[..] {
            [only] if !only.names.is_empty() => Ok((only.names[0].clone(), only.context)),
            _ => Err(error(format!("has several models, [{}]; name one of them", names()))),
        },
    }
}

struct Probe<'a> {
    line: &'a Line,
    model: &'a str,
    /// The probe text as this model's tokens.
    ids: Vec<TokenId>,
}

impl Probe<'_> {
    fn complete(&self, sampling: &Sampling, tokens: usize) -> Result<Reply> {
        let body = Body::new(self.model, Prompt::Ids(&self.ids), tokens, sampling).logprobs();
        self.line.complete(0, &body.bytes())
    }

    /// The server's tokens of a text must be ours, with or without those that it adds at the ends.
    fn same_tokenizer(&self, text: &ModelText) -> Result<()> {
        let greedy = Sampling::greedy();
        let body = Body::new(self.model, Prompt::Text(PROBE), 1, &greedy).logprobs();
        let reply = self.line.complete(0, &body.bytes())?;
        let ours = [self.ids.clone(), text.tokenizer.encode(PROBE, true)?];
        let (same, theirs) = match (&reply.prompt_ids, reply.prompt_tokens) {
            (Some(ids), _) => {
                let same = |ours: &Vec<TokenId>| {
                    ours.iter().map(|&id| u64::from(id)).eq(ids.iter().copied())
                };
                (ours.iter().any(same), ids.len() as u64)
            }
            (None, Some(count)) => (ours.iter().any(|ours| ours.len() as u64 == count), count),
            (None, None) => {
                return Err(self.line.error(
                    "says neither the tokens of a prompt nor their number, so that its tokenizer cannot \
                     be compared with the model's",
                ));
            }
        };
        if same {
            return Ok(());
        }
        Err(self.line.error(format!(
            "has another tokenizer than {}: a probe of {} tokens gives {theirs} there{}; serve the model \
             that --model names",
            text.name,
            ours[0].len(),
            if ours[0].len() as u64 == theirs { ", but others" } else { "" }
        )))
    }

    /// A prompt of token ids must be read as it was sent.
    fn prompt_is_kept(&self, reply: &Reply) -> Result<()> {
        let sent = self.ids.len() as u64;
        match reply.prompt_tokens {
            Some(read) if read != sent => Err(self.line.error(format!(
                "reads {read} tokens where {sent} were sent; it must take prompts of token ids as they \
                 are"
            ))),
            _ => Ok(()),
        }
    }

    /// Filters that only some servers know, and log probabilities that some take from the tempered
    /// distribution: with one token left to draw from, any temperature must give the greedy output.
    fn sampling(&self, needs: &Needs, greedy: &Reply) -> Result<()> {
        let wanted = needs.sampling;
        let base = Sampling { temperature: HOT, seed: 1, ..Sampling::greedy() };
        let tempered = needs.logprobs.filter(|_| !matches!(wanted.temperature, 0.0 | 1.0));
        if wanted.top_k > 0 || tempered.is_some() {
            let reply = self.complete(&Sampling { top_k: 1, ..base }, COMPARED)?;
            let same = reply.text == greedy.text;
            if wanted.top_k > 0 && !same {
                return Err(refused(self.line, "top_k", "is ignored by the server"));
            }
            let pairs = greedy.logprobs.iter().flatten().zip(reply.logprobs.iter().flatten());
            let differ = pairs.into_iter().any(|(a, b)| (a - b).abs() > NOISE + 0.05 * a.abs());
            if let Some(option) = tempered
                && same
                && differ
            {
                let problem = "needs log probabilities at temperature 1, and the server sends those of \
                               the temperature it samples with; sample at temperature 1";
                return Err(refused(self.line, option, problem));
            }
        }
        if wanted.min_p > 0.0 {
            let reply = self.complete(&Sampling { min_p: 1.0, ..base }, COMPARED)?;
            if reply.text != greedy.text {
                return Err(refused(self.line, "min_p", "is ignored by the server"));
            }
        }
        Ok(())
    }

    /// Log probabilities of given tokens.
    fn scores(&self) -> Result<()> {
        let greedy = Sampling::greedy();
        let body = Body::new(self.model, Prompt::Ids(&self.ids), 1, &greedy).echo();
        let problem = "= C3 needs the log probabilities of given tokens, which the server does not send \
                       (vLLM and SGLang do); use C1 or C2";
        let reply = match self.line.complete(0, &body.bytes()) {
            Ok(reply) => reply,
            Err(TrainError::Endpoint { url, problem: said }) => {
                let problem = format!("{problem}: {url} {said}");
                return Err(TrainError::option("confidence", problem));
            }
            Err(other) => return Err(other),
        };
        match echoed(&reply, &self.ids, 1) {
            Some(_) => Ok(()),
            None => Err(refused(self.line, "confidence", problem)),
        }
    }
}

/// The log probabilities of `ids[from..]` in a reply that repeats its prompt `ids`.
pub(super) fn echoed(reply: &Reply, ids: &[TokenId], from: usize) -> Option<Vec<f32>> {
    let logprobs = reply.logprobs.as_ref()?;
    // One more token is generated: not all servers take 0.
    let whole = logprobs.len() == ids.len() || logprobs.len() == ids.len() + 1;
    let scores = logprobs.get(from..ids.len()).filter(|_| whole)?;
    scores.iter().all(|p| p.is_finite()).then(|| scores.to_vec())
}
