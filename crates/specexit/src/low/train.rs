//! Flags of `train`.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

use clap::Args;
use specexit_model::Positions;
use specexit_train::{Init, LossWeights, ProbeKind, Products, Sequences, TrainOptions};

use super::ModelArgs;
use super::shared::word;

/// The library's defaults are the program's.
static DEFAULT: LazyLock<TrainOptions> = LazyLock::new(TrainOptions::default);

/// Train a draft head with a signal probe on labels
#[derive(Debug, Args)]
#[command(after_help = "\
The finished head is in OUT/head; OUT/report.html tells how good it is. Repeating the command goes on where it was, to the same result.

Examples:
  specexit train --model model.gguf --labels labels.jsonl --out run
  specexit train --model model.gguf --labels labels.jsonl --signals-only eagle3-head --out run")]
pub(crate) struct Train {
    /// Label file of `label`, made with the same model
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: PathBuf,
    /// Folder of the run: states, checkpoints, metrics, reports, and in head/ the finished head
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Give this finished EAGLE-3 head a signal probe, which replaces any it has, and train only that:
    /// its draft layer stays as it is, byte for byte
    #[arg(
        long,
        value_name = "HEAD",
        conflicts_with_all = [
            "intermediate_size", "heads", "kv_heads", "head_dim", "draft_vocab_size", "init",
            "sequences", "epochs", "lr", "weight_decay", "clip_norm", "ttt_steps", "ttt_decay",
            "products", "report_chain",
        ],
    )]
    pub(crate) signals_only: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) draft: DraftArgs,
    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Sizes of the head.
#[derive(Debug, Args)]
#[command(next_help_heading = "Head")]
pub(crate) struct ShapeArgs {
    /// Width of the head's MLP [default: the target's, at most 4 hidden sizes]
    #[arg(long, value_name = "N")]
    pub(crate) intermediate_size: Option<usize>,
    /// Query heads [default: the target's]
    #[arg(long, value_name = "N")]
    pub(crate) heads: Option<usize>,
    /// Key/value heads [default: the target's]
    #[arg(long, value_name = "N")]
    pub(crate) kv_heads: Option<usize>,
    /// Width of a head, even [default: the target's]
    #[arg(long, value_name = "N")]
    pub(crate) head_dim: Option<usize>,
    /// Tokens the draft can name [default: those that occur, at most 32000]
    #[arg(long, value_name = "N")]
    pub(crate) draft_vocab_size: Option<usize>,
    /// Where the weights start: target or random [default: target]
    #[arg(long, value_name = "KIND", value_parser = word::<Init>)]
    pub(crate) init: Option<Init>,
}

/// What is learned from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataArgs {
    /// Whole outputs, or such as are shortened to the earliest sufficient cut: whole or shortened
    /// [default: whole]
    #[arg(long, value_name = "KIND", value_parser = word::<Sequences>)]
    pub(crate) sequences: Option<Sequences>,
    /// Leave the thinking tokens after the earliest sufficient cut without labels, as the article does;
    /// otherwise whole outputs have progress 1 and remaining 0 there
    #[arg(long)]
    pub(crate) no_label_beyond: bool,
    /// Longest training sequence, in tokens
    #[arg(long, value_name = "N", default_value_t = DEFAULT.max_length)]
    pub(crate) max_length: usize,
    /// Share of the questions held out
    #[arg(long, value_name = "X", default_value_t = DEFAULT.held_out)]
    pub(crate) held_out: f64,
    /// Tokens of a step, prompts included
    #[arg(long, value_name = "N", default_value_t = DEFAULT.batch_tokens)]
    pub(crate) batch_tokens: usize,
    /// Most room for the target's states on disk, in GB; 0 for none. What does not fit is computed each
    /// time it is read, to the same result
    #[arg(long, value_name = "X", default_value_t = DEFAULT.cache_gb)]
    pub(crate) cache_gb: f64,
}

/// How the draft layer learns.
#[derive(Debug, Args)]
#[command(next_help_heading = "Draft layer")]
pub(crate) struct DraftArgs {
    /// Passes over the training sequences
    #[arg(long, value_name = "N", default_value_t = DEFAULT.epochs)]
    pub(crate) epochs: usize,
    /// Peak learning rate
    #[arg(long, value_name = "X", default_value_t = DEFAULT.lr)]
    pub(crate) lr: f64,
    /// Share of the steps over which the learning rate rises
    #[arg(long, value_name = "X", default_value_t = DEFAULT.warmup)]
    pub(crate) warmup: f64,
    /// What the cosine decay ends at, as a share of the peak
    #[arg(long, value_name = "X", default_value_t = DEFAULT.final_lr)]
    pub(crate) final_lr: f64,
    /// AdamW's decay of the first moment
    #[arg(long, value_name = "X", default_value_t = DEFAULT.beta1)]
    pub(crate) beta1: f64,
    /// AdamW's decay of the second moment
    #[arg(long, value_name = "X", default_value_t = DEFAULT.beta2)]
    pub(crate) beta2: f64,
    /// AdamW's weight decay
    #[arg(long, value_name = "X", default_value_t = DEFAULT.weight_decay)]
    pub(crate) weight_decay: f64,
    /// Longest gradient; longer ones are scaled down
    #[arg(long, value_name = "X", default_value_t = DEFAULT.clip_norm)]
    pub(crate) clip_norm: f64,
    /// Steps of the training-time test
    #[arg(long, value_name = "K", default_value_t = DEFAULT.ttt_steps)]
    pub(crate) ttt_steps: usize,
    /// How much less each further step weighs
    #[arg(long, value_name = "X", default_value_t = DEFAULT.ttt_decay)]
    pub(crate) ttt_decay: f64,
    /// What products are computed in: bf16 or f32 [default: bf16]
    #[arg(long, value_name = "KIND", value_parser = word::<Products>)]
    pub(crate) products: Option<Products>,
}

/// How the signal probe learns.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signal probe")]
pub(crate) struct ProbeArgs {
    /// Three more rows of fc, as published, a small MLP over the same states, or rows that read the
    /// draft layer's output: fc, mlp or draft [default: fc]
    #[arg(long, value_name = "KIND", value_parser = word::<ProbeKind>)]
    pub(crate) probe: Option<ProbeKind>,
    /// Width of the MLP's hidden layer [default: 128]
    #[arg(long, value_name = "N")]
    pub(crate) probe_width: Option<usize>,
    /// Which thinking tokens have signals: all (dense) or those at boundaries, where exits are
    /// decided: dense or boundaries [default: boundaries]
    #[arg(long, value_name = "WHERE", value_parser = word::<Positions>)]
    pub(crate) positions: Option<Positions>,
    /// Further passes with the probe alone
    #[arg(long, value_name = "N", default_value_t = DEFAULT.probe_epochs)]
    pub(crate) probe_epochs: usize,
    /// Peak learning rate of the probe
    #[arg(long, value_name = "X", default_value_t = DEFAULT.probe_lr)]
    pub(crate) probe_lr: f64,
    /// Weight decay of the probe
    #[arg(long, value_name = "X", default_value_t = DEFAULT.probe_weight_decay)]
    pub(crate) probe_weight_decay: f64,
    /// Longest gradient of the probe
    #[arg(long, value_name = "X", default_value_t = DEFAULT.probe_clip_norm)]
    pub(crate) probe_clip_norm: f64,
    /// By gradient norms, against the token loss (w1) or one another (w2); or fixed numbers
    /// CONFIDENCE,PROGRESS,REMAINING; dynamic is w2 with --signals-only, else w1 [default: dynamic]
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) loss_weights: Option<Weights>,
}

/// How the run goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub(crate) struct RunArgs {
    /// Passes without a better held-out loss after which no further ones are made [default: all
    /// passes are made]
    #[arg(long, value_name = "N")]
    pub(crate) patience: Option<usize>,
    /// Seed of initial weights, data order and held-out split
    #[arg(long, value_name = "N", default_value_t = DEFAULT.seed)]
    pub(crate) seed: u64,
    /// Longest drafted chain that the report simulates
    #[arg(long, value_name = "K", default_value_t = DEFAULT.report_chain)]
    pub(crate) report_chain: usize,
    /// Steps between checkpoints [default: by time alone]
    #[arg(long, value_name = "N")]
    pub(crate) checkpoint_steps: Option<u64>,
    /// Seconds between checkpoints
    #[arg(long, value_name = "X", default_value_t = DEFAULT.checkpoint_seconds)]
    pub(crate) checkpoint_seconds: f64,
}

/// The weights of the signal losses, as typed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weights(pub(crate) LossWeights);

impl FromStr for Weights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dynamic" => return Ok(Self(LossWeights::Dynamic)),
            "w1" => return Ok(Self(LossWeights::W1)),
            "w2" => return Ok(Self(LossWeights::W2)),
            _ => {}
        }
        let numbers: Option<Vec<f64>> =
            text.split(',').map(|n| n.parse().ok().filter(|n: &f64| n.is_finite())).collect();
        match numbers.as_deref() {
            Some(&[confidence, progress, remaining]) => {
                Ok(Self(LossWeights::Fixed { confidence, progress, remaining }))
            }
            _ => Err("expected dynamic, w1, w2, or three numbers such as 1,1,0.1".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_weights_are_a_word_or_three_numbers() {
        assert_eq!("dynamic".parse(), Ok(Weights(LossWeights::Dynamic)));
        assert_eq!("w1".parse(), Ok(Weights(LossWeights::W1)));
        assert_eq!("w2".parse(), Ok(Weights(LossWeights::W2)));
        let fixed = LossWeights::Fixed { confidence: 1.0, progress: 0.5, remaining: 0.1 };
        assert_eq!("1,0.5,0.1".parse(), Ok(Weights(fixed)));
        for text in ["", "w3", "1,2", "1,2,x", "1,2,nan", "1,2,3,4"] {
            assert!(text.parse::<Weights>().is_err(), "{text}");
        }
    }
}
