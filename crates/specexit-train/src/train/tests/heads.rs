//! The head that is written, against what was measured in training.

use std::sync::Arc;

use specexit_exit::{BoundaryTable, Signals};
use specexit_kernels::{Kernels, Precision, RopeTable};
use specexit_model::Probe;
use specexit_model::config::inverse_frequencies;
use specexit_model::head_file::HeadFile;

use super::*;
use crate::data::examples::{Example, ExampleRules, read_examples, split};
use crate::net::draft::{Draft, DraftBatch, DraftSequence, DraftShape, tensor_shapes};
use crate::net::params::Param;
use crate::ops::all_cores;

/// Held-out sequences of a run.
fn held_out_of(options: &TrainOptions) -> Vec<Example> {
    let table = BoundaryTable::new(&LabelRules::default().boundaries, &facts().token_bytes);
    let rules = ExampleRules {
        norm: ProgressNorm::Cut,
        sequences: options.sequences,
        label_beyond: false,
        boundaries: (options.positions == Positions::Boundaries).then_some(&table),
        max_length: 64,
    };
    let records = LabelFile::open(&options.labels).unwrap();
    let examples = read_examples(&options.labels, records, &rules).unwrap();
    let (_, held_out) = split(&examples, options.held_out, options.seed).unwrap();
    held_out.into_iter().map(|i| examples[i].clone()).collect()
}

/// The normed outputs of a written head's draft layer for the labels of `example`, one after another.
fn draft_outputs(head: &HeadFile, options: &TrainOptions, example: &Example) -> Vec<f32> {
    let config = &head.config;
    let shape = DraftShape {
        hidden: WIDTH,
        taps: 3 * WIDTH,
        intermediate: config.intermediate_size,
        heads: config.num_attention_heads,
        kv_heads: config.kv_heads(),
        head_dim: config.head_dim(),
        vocab: config.draft_vocab(),
        eps: config.rms_norm_eps,
    };
    let param = |(name, dims)| Param::new(name, dims, head.tensors[name].data.clone());
    let params: Vec<Param> = tensor_shapes(&shape).into_iter().map(param).collect();
    let source = ToySource::new(WIDTH, VOCAB);
    let mut embeddings = vec![0.0; (example.context() + 1) * WIDTH];
    for (row, &token) in embeddings.chunks_exact_mut(WIDTH).zip(&example.tokens) {
        source.embedding(token, row);
    }
    let taps = source.states(&example.tokens).unwrap().0;
    let (context, first) = (example.context(), example.first());
    let queries = example.queries();
    let batch = DraftBatch {
        taps: taps[..context * 3 * WIDTH].to_vec(),
        sequences: vec![DraftSequence { context, first, queries, embeddings }],
        // Row 0 is the prompt's last position and reads the first token of the thought.
        probed: example.labels.iter().map(|l| l.position - example.prompt).collect(),
        ..DraftBatch::default()
    };
    let frequencies = inverse_frequencies(config.rope_theta, shape.head_dim);
    let rope = Arc::new(RopeTable::new(&frequencies, 64));
    let mut draft = Draft::new(&shape, rope, options.products, &all_cores());
    draft.prepare(&params).unwrap();
    draft.probed(&batch).unwrap()
}

#[test]
fn the_head_says_what_the_trained_probe_said() {
    for (probe, positions, steady) in [
        (ProbeKind::Fc, Positions::Dense, true),
        (ProbeKind::Mlp, Positions::Boundaries, true),
        (ProbeKind::Draft, Positions::Dense, true),
        // The head's layer is another than the one that the last joint pass ended with.
        (ProbeKind::Draft, Positions::Boundaries, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_labels(&folder.path().join("labels.jsonl"), "toy");
        let options = TrainOptions { probe, positions, ..options(folder.path()) };
        let options = if steady { options } else { unsteady(options) };
        let report = run(&options, &mut Silent).unwrap().report.unwrap();
        let steps = read_step_metrics(&options.out.join("metrics.jsonl")).unwrap();
        let joint = steps.iter().filter(|step| step.token_loss.is_some()).count() as u64;
        let best = report.run.best_draft_step.unwrap();
        assert_eq!(best == joint, steady, "the best draft layer is of step {best} of {joint}");
        let quality = report.held_out.unwrap();
        let head = HeadFile::open(&options.out.join("head")).unwrap();
        assert_eq!(head.config.specexit.as_ref().unwrap().positions, positions);
        let rows: usize = if probe == ProbeKind::Fc { WIDTH + 3 } else { WIDTH };
        assert_eq!(head.tensors["fc.weight"].shape, [rows, 3 * WIDTH]);
        let runs = Probe::of_head(&head).unwrap();
        let kernels = Kernels::new(1, Precision::F32);
        assert_eq!(runs.reads_draft(), probe == ProbeKind::Draft);

        // The loss of the held-out labels, read off the written head.
        let (mut loss, mut count) = (0.0, 0);
        for example in held_out_of(&options) {
            let taps = ToySource::new(WIDTH, VOCAB).states(&example.tokens).unwrap().0;
            let outputs = match probe {
                ProbeKind::Draft => draft_outputs(&head, &options, &example),
                _ => Vec::new(),
            };
            for (i, labelled) in example.labels.iter().enumerate() {
                assert!(
                    positions == Positions::Dense || example.tokens[labelled.position] % 5 == 0
                );
                let state = match probe {
                    ProbeKind::Draft => &outputs[i * WIDTH..][..WIDTH],
                    _ => &taps[labelled.position * 3 * WIDTH..][..3 * WIDTH],
                };
                let progress = Signals::from_logits(runs.logits(&kernels, state)).progress;
                loss += f64::from(progress - labelled.label.progress).powi(2);
                count += 1;
            }
        }
        let signal = &quality.signals[1];
        assert_eq!(signal.labels, count);
        // The states behind the measured loss are rounded to bf16, and so are the rows.
        let off = (loss / count as f64 - signal.loss).abs();
        assert!(off < 0.05 * signal.loss, "{probe:?}: {} {}", loss / count as f64, signal.loss);
    }
}

/// The draft layer is what it would have been beside any other probe: signals do not shape it.
#[test]
fn a_probe_after_the_draft_layer_leaves_it_alone() {
    let layer = |probe| {
        let folder = tempfile::tempdir().unwrap();
        write_labels(&folder.path().join("labels.jsonl"), "toy");
        let options = TrainOptions { probe, ..options(folder.path()) };
        run(&options, &mut Silent).unwrap();
        let mut head = HeadFile::open(&options.out.join("head")).unwrap();
        head.tensors.retain(|name, _| !name.starts_with("probe."));
        head.tensors
    };
    assert!(layer(ProbeKind::Draft) == layer(ProbeKind::Mlp));
}
