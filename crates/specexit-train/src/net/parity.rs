//! The training forward against the draft head as inference runs it.

use std::sync::Arc;

use specexit_kernels::{Precision, RopeTable};
use specexit_model::config::inverse_frequencies;
use specexit_model::head_file::HeadFile;
use specexit_model::{
    DraftHead, DraftRows, DraftWorkspace, LogitRows, Model, ModelSource, Probe, Workspace,
};
use specexit_testkit as testkit;

use super::draft::{Draft, DraftBatch, DraftSequence, DraftShape, Targets, tensor_shapes};
use super::params::Param;
use crate::ops::{Products, all_cores};

/// Token sequences with the length of their prompts.
const SEQUENCES: [(usize, usize); 2] = [(24, 7), (17, 1)];
const STEPS: usize = 4;

fn tokens(sequence: usize) -> Vec<u32> {
    (0..SEQUENCES[sequence].0 as u32)
        .map(|i| (i * i * 31 + i * 7 + sequence as u32) % 256)
        .collect()
}

/// The weights of a head file as trained tensors; the probe's rows are left out.
fn params(file: &HeadFile, shape: &DraftShape) -> Vec<Param> {
    let shapes = tensor_shapes(shape).into_iter();
    shapes
        .map(|(name, dims)| {
            let count = dims.iter().product();
            Param::new(name, dims, file.tensors[name].data[..count].to_vec())
        })
        .collect()
}

#[test]
fn training_and_inference_compute_the_same_logits_at_every_depth() {
    let folder = tempfile::tempdir().unwrap();
    testkit::write_model(folder.path(), 3).unwrap();
    let source = ModelSource::Folder(folder.path().to_owned());
    let model = Model::load(&source, 1, Precision::F32).unwrap();
    let head_folder = folder.path().join("head");
    testkit::write_head_with_draft_probe(&head_folder, 5, 190).unwrap();
    let head = DraftHead::load(&head_folder, &model.target).unwrap();
    let file = HeadFile::open(&head_folder).unwrap();
    let config = &file.config;
    let probe = Probe::of_head(&file).unwrap();
    let shape = DraftShape {
        hidden: config.hidden_size,
        taps: 3 * config.target_hidden(),
        intermediate: config.intermediate_size,
        heads: config.num_attention_heads,
        kv_heads: config.kv_heads(),
        head_dim: config.head_dim(),
        vocab: config.draft_vocab(),
        eps: config.rms_norm_eps,
    };

    // One training batch of both sequences.
    let width = shape.hidden;
    let (mut taps, mut sequences) = (Vec::new(), Vec::new());
    for (s, (length, prompt)) in SEQUENCES.into_iter().enumerate() {
        let tokens = tokens(s);
        let states = model.target.states(&tokens, &mut Workspace::default()).unwrap();
        let context = length - 2;
        taps.extend_from_slice(&states.taps[..context * shape.taps]);
        let mut embeddings = vec![0f32; (context + 1) * width];
        for (row, &token) in embeddings.chunks_exact_mut(width).zip(&tokens) {
            model.target.embedding_row(token, row);
        }
        let first = prompt - 1;
        sequences.push(DraftSequence { context, first, queries: context - first, embeddings });
    }
    let drafting: usize = sequences.iter().map(|s| s.queries).sum();
    let batch = DraftBatch {
        taps,
        sequences,
        targets: Targets {
            probs: vec![0.0; drafting * shape.vocab],
            argmax: vec![Some(0); drafting],
        },
        probed: (0..drafting).collect(),
    };
    let inv_freq = inverse_frequencies(config.rope_theta, shape.head_dim);
    let rope = Arc::new(RopeTable::new(&inv_freq, 64));
    let kernels = all_cores();
    let [exact, rounded] = [Products::F32, Products::Bf16].map(|products| {
        let mut draft = Draft::new(&shape, Arc::clone(&rope), products, &kernels);
        draft.prepare(&params(&file, &shape)).unwrap();
        (draft.forward(&batch, STEPS).unwrap().logits, draft.probed(&batch).unwrap())
    });

    // Inference: read states 0..=t, then chain on with the true tokens.
    let mut starts = [0usize; STEPS];
    for (s, sequence) in batch.sequences.iter().enumerate() {
        let tokens = tokens(s);
        let states = model.target.states(&tokens, &mut Workspace::default()).unwrap();
        for i in 0..sequence.queries {
            let t = sequence.first + i;
            let mut residual = Vec::new();
            head.fuse(&states.taps[..(t + 1) * shape.taps], &mut residual);
            let mut cache = head.new_cache();
            let mut workspace = DraftWorkspace::default();
            let mut next = tokens[1..t + 2].to_vec();
            for step in 0..STEPS.min(sequence.queries - i) {
                let read = DraftRows {
                    tokens: &next,
                    residual: &residual,
                    cache: &mut cache,
                    logits: LogitRows::Last,
                };
                head.forward(&mut [read], &mut workspace).unwrap();
                for (trained, tolerance) in [(&exact, 1e-3), (&rounded, 6e-2)] {
                    let ours = &trained.0[step][(starts[step] + i) * shape.vocab..];
                    for (a, b) in ours.iter().zip(workspace.logits(0)) {
                        let off = (a - b).abs();
                        assert!(off < tolerance, "sequence {s} from {t} depth {step}: {a} {b}");
                    }
                }
                residual = workspace.hidden(next.len() - 1).to_vec();
                let said = head.draft_signal_logits(&residual).unwrap();
                for (trained, tolerance) in [(&exact, 1e-3), (&rounded, 6e-2)] {
                    if step > 0 {
                        break;
                    }
                    let ours =
                        probe.logits(&kernels, &trained.1[(starts[0] + i) * width..][..width]);
                    for (a, b) in ours.iter().zip(said) {
                        assert!((a - b).abs() < tolerance, "sequence {s} from {t}: {a} {b}");
                    }
                }
                next = vec![tokens[t + 2 + step]];
            }
        }
        for (step, start) in starts.iter_mut().enumerate() {
            *start += sequence.queries.saturating_sub(step);
        }
    }
}
