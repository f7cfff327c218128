//! The layer over slices against the one on the tape, and against differences.

use super::*;
use crate::net::params::Param;
use crate::ops::all_cores;
use crate::ops::check::{numbers, relative};

/// No size is a multiple of what the kernels pad to.
fn shape() -> DraftShape {
    DraftShape {
        hidden: 24,
        taps: 3 * 20,
        intermediate: 37,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        vocab: 45,
        eps: 1e-5,
    }
}

fn params(shape: &DraftShape) -> Vec<Param> {
    let shapes = tensor_shapes(shape).into_iter().enumerate();
    shapes
        .map(|(i, (name, dims))| {
            let count = dims.iter().product();
            // Large enough that every tensor matters, small enough that rounding does not.
            let (middle, spread) = if dims.len() == 1 { (1.0, 0.2) } else { (0.0, 0.25) };
            let value = numbers(70 + i as u64, count).iter().map(|n| middle + spread * n).collect();
            Param::new(name, dims, value)
        })
        .collect()
}

/// Sequences of different lengths and prompts; one is done after a step. Some positions have no
/// target among the draft's tokens.
fn batch(shape: &DraftShape) -> DraftBatch {
    let mut batch = DraftBatch::default();
    for (i, (first, queries)) in [(6, 11), (0, 1), (2, 40), (9, 3)].into_iter().enumerate() {
        let context = first + queries;
        let seed = 10 * i as u64;
        batch.taps.extend(numbers(seed + 1, context * shape.taps));
        let embeddings = numbers(seed + 2, (context + 1) * shape.hidden);
        batch.sequences.push(DraftSequence { context, first, queries, embeddings });
        let mut probs = numbers(seed + 3, queries * shape.vocab);
        for (row, probs) in probs.chunks_exact_mut(shape.vocab).enumerate() {
            probs.iter_mut().for_each(|p| *p = (4.0 * *p).exp());
            let sum: f32 = probs.iter().sum();
            probs.iter_mut().for_each(|p| *p /= sum);
            let known = !(row + i).is_multiple_of(5);
            batch.targets.argmax.push(known.then_some((7 * row % shape.vocab) as u32));
        }
        batch.targets.probs.extend(probs);
    }
    // The first and last row of a sequence, and some between.
    batch.probed = vec![0, 3, 10, 11, 12, 40, 54];
    batch
}

fn rope() -> Arc<RopeTable> {
    Arc::new(RopeTable::new(&[1.0, 0.3, 0.1], 64))
}

const STEPS: usize = 4;
const DECAY: f64 = 0.8;

fn gradients(draft: &mut Draft) -> (Drafted, Vec<Vec<f32>>) {
    let shape = shape();
    let params = params(&shape);
    // What was there before must not matter.
    let mut grads: Vec<Vec<f32>> = params.iter().map(|p| vec![3.0; p.value.len()]).collect();
    let batch = batch(&shape);
    let drafted = draft.gradients(&params, &batch, STEPS, DECAY, &mut grads).unwrap();
    (drafted, grads)
}

/// Checks loss, picks and gradients of `found` against those of `expected`.
fn compare(
    (found, grads): &(Drafted, Vec<Vec<f32>>),
    (expected, expected_grads): &(Drafted, Vec<Vec<f32>>),
    tolerance: f64,
) {
    let off = (found.loss - expected.loss).abs() / expected.loss;
    assert!(off < tolerance, "loss {} {}", found.loss, expected.loss);
    assert_eq!(found.step_losses.len(), STEPS);
    for (f, e) in found.step_losses.iter().zip(&expected.step_losses) {
        assert!((f - e).abs() < tolerance * e, "loss of a step {f} {e}");
    }
    let vocab = shape().vocab;
    for (step, (picks, logits)) in found.picks.iter().zip(&expected.logits).enumerate() {
        assert_eq!(picks.len() * vocab, logits.len());
        for (pick, row) in picks.iter().zip(logits.chunks_exact(vocab)) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // Rounding may decide between two that are nearly equal.
            assert!(row[*pick as usize] > largest - 0.1, "step {step}");
        }
    }
    for ((p, found), expected) in params(&shape()).iter().zip(grads).zip(expected_grads) {
        let off = relative(found, expected);
        assert!(off < tolerance, "{}: {off}", p.name);
    }
}

#[test]
fn gradients_are_those_of_the_tape() {
    let (shape, kernels) = (shape(), all_cores());
    let mut tape = Draft::new(&shape, rope(), Products::F32, &kernels);
    let exact = gradients(&mut tape);
    let gemm = Gemm::Kernels(Arc::clone(&kernels));
    let mut tape = Draft::Tape(Box::new(Tape::new(&shape, rope(), gemm)));
    let rounded = gradients(&mut tape);
    let mut fast = Draft::new(&shape, rope(), Products::Bf16, &kernels);
    // Twice, because buffers are used again, after a batch of another size.
    for _ in 0..2 {
        let found = gradients(&mut fast);
        compare(&found, &exact, 4e-2);
        // Where the same factors are rounded, only the order of sums differs, and now and then a
        // number that is thereby rounded the other way.
        compare(&found, &rounded, 4e-3);
        let mut smaller = batch(&shape);
        smaller.sequences.truncate(1);
        smaller.taps.truncate(smaller.context() * shape.taps);
        fast.prepare(&params(&shape)).unwrap();
        assert_eq!(fast.forward(&smaller, 6).unwrap().picks.len(), 6);
    }
}

#[test]
fn probed_rows_are_those_of_the_tape_and_need_neither_targets_nor_their_neighbours() {
    let (shape, batch) = (shape(), batch(&shape()));
    let probed = |products, batch: &DraftBatch| {
        let mut draft = Draft::new(&shape, rope(), products, &all_cores());
        draft.prepare(&params(&shape)).unwrap();
        draft.probed(batch).unwrap()
    };
    let (tape, fast) = (probed(Products::F32, &batch), probed(Products::Bf16, &batch));
    assert_eq!(tape.len(), 7 * shape.hidden);
    assert!(relative(&fast, &tape) < 2e-2, "{}", relative(&fast, &tape));
    for (products, all) in [(Products::F32, &tape), (Products::Bf16, &fast)] {
        let mut other = DraftBatch { targets: Targets::default(), ..batch.clone() };
        assert_eq!(&probed(products, &other), all);
        other.probed = vec![12];
        assert_eq!(probed(products, &other), all[4 * shape.hidden..5 * shape.hidden]);
        other.probed.clear();
        assert!(probed(products, &other).is_empty());
    }
}

#[test]
fn the_tape_agrees_with_differences() {
    let shape = shape();
    let batch = batch(&shape);
    let mut tape = Draft::new(&shape, rope(), Products::F32, &all_cores());
    let grads = gradients(&mut tape).1;
    for (i, grad) in grads.iter().enumerate() {
        let mut params = params(&shape);
        let direction = numbers(500 + i as u64, grad.len());
        let expected: f64 =
            grad.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let start = params[i].value.clone();
        let mut loss = |step: f32| {
            let moved = start.iter().zip(&direction).map(|(x, d)| x + step * d);
            params[i].value = moved.collect();
            tape.prepare(&params).unwrap();
            let steps = tape.forward(&batch, STEPS).unwrap().step_losses;
            steps.iter().enumerate().map(|(k, l)| l * DECAY.powi(k as i32)).sum::<f64>()
        };
        let mut central = |h: f32| (loss(h) - loss(-h)) / (2.0 * f64::from(h));
        // Richardson: the h^2 error of central differences cancels.
        let found = (4.0 * central(2e-3) - central(4e-3)) / 3.0;
        let scale = expected.abs().max(found.abs()).max(0.02);
        assert!((expected - found).abs() / scale < 2e-2, "tensor {i}: {expected} {found}");
    }
}

#[test]
fn threads_change_no_bit() {
    let of = |threads| {
        let kernels = Arc::new(Kernels::new(threads, specexit_kernels::Precision::Bf16));
        let (drafted, grads) =
            gradients(&mut Draft::new(&shape(), rope(), Products::Bf16, &kernels));
        (drafted.loss, drafted.picks, grads)
    };
    assert_eq!(of(1), of(3));
}

#[test]
fn nothing_to_draft_is_an_error() {
    let shape = shape();
    let mut batch = batch(&shape);
    batch.sequences.iter_mut().for_each(|s| s.queries = 0);
    for products in [Products::Bf16, Products::F32] {
        let mut draft = Draft::new(&shape, rope(), products, &all_cores());
        draft.prepare(&params(&shape)).unwrap();
        let error = draft.forward(&batch, STEPS).unwrap_err().to_string();
        assert!(error.contains("without drafted positions"), "{error}");
    }
}
