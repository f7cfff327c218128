//! The operations that only the draft layer's training needs, against their definitions, on every
//! instruction set.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Numbers, bits, close, kernels, wide, widened};
use specexit_kernels::{
    AdamW, Bf16Rows, CausalShape, ChainSequence, Kernels, Precision, RopeTable, RowLosses,
    SoftTargets,
};

fn weighted(y: &[f64], weights: &[f32]) -> f64 {
    y.iter().zip(weights).map(|(y, w)| y * f64::from(*w)).sum()
}

/// Slopes of `loss` at `x` along `directions`, by central differences.
fn slopes(x: &[f32], directions: &[Vec<f32>], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let along = |direction: &Vec<f32>| {
        let at = |step: f64| {
            let moved = x.iter().zip(direction).map(|(x, d)| f64::from(*x) + step * f64::from(*d));
            loss(&moved.collect::<Vec<_>>())
        };
        (at(1e-5) - at(-1e-5)) / 2e-5
    };
    directions.iter().map(along).collect()
}

const ROUNDING: f64 = 1.0 / 256.0;
const SHAPE: CausalShape = CausalShape { heads: 4, kv_heads: 2, head_dim: 6 };
const ROW: usize = 48;
const FREQUENCIES: [f32; 3] = [1.0, 0.3, 0.1];

/// Prompt and first number of queries of each sequence: one within a block, one of more than a
/// block, one that has no query left after the first step.
fn sequences() -> Vec<(usize, usize)> {
    if cfg!(miri) { vec![(1, 2), (0, 1)] } else { vec![(5, 7), (0, 1), (3, 43), (0, 9)] }
}

/// Rows of each sequence at step `step` and the geometry.
fn geometry(step: usize) -> (Vec<usize>, Vec<ChainSequence>) {
    let mut heights = Vec::new();
    let mut found: Vec<ChainSequence> = Vec::new();
    let mut row = 0;
    for &(first, queries) in &sequences() {
        let queries = queries.saturating_sub(step);
        found.push(ChainSequence { first, queries, row, starts: Vec::new() });
        row += queries;
    }
    for j in 0..=step {
        let mut start = 0;
        for (s, &(first, queries)) in found.iter_mut().zip(&sequences()) {
            s.starts.push(start);
            // Step 0 holds one more position than queries reach, which nobody may look at.
            start += if j == 0 { first + queries + 1 } else { queries.saturating_sub(j) };
        }
        heights.push(start);
    }
    (heights, found)
}

/// The attention of one step, written out from its definition.
fn attention(x: &[f64], heights: &[usize], sequences: &[ChainSequence]) -> Vec<f64> {
    let (hd, step) = (SHAPE.head_dim, heights.len() - 1);
    let mut offsets = vec![0];
    for rows in heights {
        offsets.push(offsets.last().unwrap() + rows * ROW);
    }
    let head = |j: usize, row: usize, head: usize| &x[offsets[j] + row * ROW + head * hd..][..hd];
    let turned = |row: &[f64], position: usize| {
        let mut row = row.to_vec();
        for (i, f) in FREQUENCIES.iter().enumerate() {
            let (sin, cos) = (position as f64 * f64::from(*f)).sin_cos();
            let (a, b) = (row[i], row[i + hd / 2]);
            (row[i], row[i + hd / 2]) = (a * cos - b * sin, b * cos + a * sin);
        }
        row
    };
    let mut out = Vec::new();
    for s in sequences {
        for i in 0..s.queries {
            let t = s.first + i;
            let own_row = s.starts[step] + if step == 0 { t } else { i };
            let mut keys: Vec<_> = (0..=t).map(|p| (0, s.starts[0] + p, p)).collect();
            keys.extend((1..=step).map(|j| (j, s.starts[j] + i, t + j)));
            for h in 0..SHAPE.heads {
                let kv = h / (SHAPE.heads / SHAPE.kv_heads);
                let q = turned(head(step, own_row, h), t + step);
                let score = |&(j, row, position): &(usize, usize, usize)| {
                    let k = turned(head(j, row, SHAPE.heads + kv), position);
                    let dot: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                    (dot / (hd as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = keys.iter().map(score).collect();
                let total: f64 = scores.iter().sum();
                for d in 0..hd {
                    let value =
                        |k: &(usize, _, _)| head(k.0, k.1, SHAPE.heads + SHAPE.kv_heads + kv)[d];
                    let sum: f64 = keys.iter().zip(&scores).map(|(k, s)| s * value(k)).sum();
                    out.push(sum / total);
                }
            }
        }
    }
    out
}

#[test]
fn chain_attention_and_its_gradients() {
    // One step is what Miri has the time for.
    for step in if cfg!(miri) { 1..2 } else { 0..4 } {
        let (heights, sequences) = geometry(step);
        let rows: usize = sequences.iter().map(|s| s.queries).sum();
        let total: usize = heights.iter().sum::<usize>() * ROW;
        let mut random = Numbers::new(6 + step as u64);
        let x: Vec<f32> = random.take(total).iter().map(|x| 2.0 * x).collect();
        let g = random.take(rows * SHAPE.heads * SHAPE.head_dim);
        let expected = attention(&wide(&x), &heights, &sequences);
        let directions: Vec<Vec<f32>> =
            (0..if cfg!(miri) { 2 } else { 8 }).map(|_| random.take(total)).collect();
        let slopes = slopes(&x, &directions, |x| weighted(&attention(x, &heights, &sequences), &g));
        let rope = RopeTable::new(&FREQUENCIES, 64);
        let mut qkv = Vec::new();
        let mut rest = &x[..];
        for rows in &heights {
            let (own, others) = rest.split_at(rows * ROW);
            qkv.push(own);
            rest = others;
        }
        let mut same: Vec<Vec<u32>> = Vec::new();
        for kernels in kernels(1).chain(kernels(3)) {
            let mut out = Bf16Rows::default();
            let mut lse = vec![f32::NAN; rows * SHAPE.heads];
            kernels.chain_attention(&mut out, &mut lse, &qkv, &sequences, SHAPE, &rope);
            close(&widened(&out), &expected, ROUNDING, "out");
            // Gradients are added to what is there.
            let mut d = vec![1.0; total];
            let mut parts = Vec::new();
            let mut rest = &mut d[..];
            for rows in &heights {
                let (own, others) = rest.split_at_mut(rows * ROW);
                parts.push(own);
                rest = others;
            }
            kernels.chain_attention_backward(&mut parts, &g, &lse, &qkv, &sequences, SHAPE, &rope);
            let found: Vec<f64> = directions
                .iter()
                .map(|direction| {
                    let terms = d.iter().zip(direction);
                    terms.map(|(d, x)| (f64::from(*d) - 1.0) * f64::from(*x)).sum()
                })
                .collect();
            close(&found, &slopes, 1e-4, &format!("{} step {step}", kernels.isa()));
            same.push([bits(&lse), bits(&d)].concat());
        }
        let (one, three) = same.split_at(same.len() / 2);
        assert_eq!(one, three, "threads change the result");
    }
}

#[test]
#[should_panic(expected = "sequences overlap")]
fn two_sequences_may_not_share_rows() {
    let of = |row| ChainSequence { first: 0, queries: 2, row, starts: vec![0] };
    let x = vec![0.0; 4 * ROW];
    let rope = RopeTable::new(&FREQUENCIES, 64);
    let mut lse = vec![0.0; 4 * SHAPE.heads];
    let sequences = [of(0), of(2)];
    Kernels::new(1, Precision::Bf16).chain_attention(
        &mut Bf16Rows::default(),
        &mut lse,
        &[&x],
        &sequences,
        SHAPE,
        &rope,
    );
}

#[test]
fn norms_side_by_side() {
    let (rows, width, eps) = (if cfg!(miri) { 3 } else { 70 }, 21, 1e-3);
    let mut random = Numbers::new(3);
    let x = [random.take(rows * width), random.take(rows * width)];
    let w = [random.take(width), random.take(width)];
    let g = random.take(rows * 2 * width);
    for kernels in kernels(2) {
        let mut y = Bf16Rows::default();
        kernels.norm_rows_beside(&mut y, &[(&x[0], &w[0]), (&x[1], &w[1])], eps);
        for i in 0..2 {
            let mut alone = Bf16Rows::default();
            kernels.norm_rows(&mut alone, &x[i], &w[i], eps);
            let own: Vec<f32> = g
                .chunks(2 * width)
                .flat_map(|row| row[i * width..(i + 1) * width].to_vec())
                .collect();
            for row in 0..rows {
                assert_eq!(y.row(row)[i * width..(i + 1) * width], *alone.row(row));
            }
            let mut beside = [vec![1.0; rows * width], vec![-1.0; width]];
            let mut expected = beside.clone();
            let [dx, dw] = &mut beside;
            let stride = 2 * width;
            kernels.norm_rows_beside_backward(dx, dw, &g, stride, i * width, &x[i], &w[i], eps);
            let [dx, dw] = &mut expected;
            kernels.norm_rows_backward(dx, dw, &own, &x[i], &w[i], eps);
            assert_eq!(beside, expected);
        }
    }
}

#[test]
fn soft_cross_entropy_and_its_gradient() {
    let vocab = 37;
    let rows = [0, 1, 2, 2, 0];
    let weights = [1.0, 0.0, 0.3, 2.0, 1.0];
    let mut random = Numbers::new(5);
    let logits: Vec<f32> = random.take(rows.len() * vocab).iter().map(|x| 5.0 * x).collect();
    let probs: Vec<f32> = random.take(3 * vocab).iter().map(|x| (x + 1.0) / 30.0).collect();
    let losses = |x: &[f64]| -> Vec<f64> {
        let row = |(i, x): (usize, &[f64])| {
            let lse = x.iter().map(|x| x.exp()).sum::<f64>().ln();
            let p = &probs[rows[i] * vocab..][..vocab];
            let sum: f64 = p.iter().zip(x).map(|(p, x)| f64::from(*p) * (lse - x)).sum();
            f64::from(weights[i]) * sum
        };
        x.chunks(vocab).enumerate().map(row).collect()
    };
    let directions: Vec<Vec<f32>> = (0..8).map(|_| random.take(logits.len())).collect();
    let slopes = slopes(&logits, &directions, |x| losses(x).iter().sum());
    let expected = losses(&wide(&logits));
    for kernels in kernels(2) {
        let targets = SoftTargets { probs: &probs, rows: &rows, weights: &weights };
        let (mut found, mut d) = (RowLosses::default(), Bf16Rows::default());
        // What a buffer held before must not matter.
        kernels.round_rows(&mut d, &[f32::NAN; 160], 32);
        let x = &mut logits.clone();
        kernels.soft_cross_entropy(&mut found, Some((&mut d, 0.5)), x, vocab, targets);
        close(&found.losses, &expected, 1e-6, "losses");
        for (row, &pick) in logits.chunks(vocab).zip(&found.picks) {
            assert!(row.iter().all(|&x| x <= row[pick as usize]));
        }
        assert!(d.row(1).iter().all(|d| d.to_f32() == 0.0), "a row of weight 0 has a gradient");
        let gradient = widened(&d);
        let along: Vec<f64> = directions.iter().map(|x| 2.0 * weighted(&gradient, x)).collect();
        close(&along, &slopes, ROUNDING, "slopes");
        // Without a gradient the same is found.
        let mut alone = RowLosses::default();
        kernels.soft_cross_entropy(&mut alone, None, &mut logits.clone(), vocab, targets);
        assert_eq!((alone.losses, alone.picks), (found.losses, found.picks));
    }
}

#[test]
fn updates_have_the_same_bits_everywhere() {
    let count = if cfg!(miri) { 37 } else { 70_001 };
    let mut random = Numbers::new(8);
    let start = [random.take(count), random.take(count), random.take(count)];
    let squared: Vec<f32> = start[2].iter().map(|x| x * x).collect();
    let grad = random.take(count);
    let update =
        AdamW { beta1: 0.9, beta2: 0.95, rate: 0.1, correction: 2.0, eps: 1e-8, keep: 0.99 };
    let mut found: Vec<(Vec<Vec<u32>>, u64)> = Vec::new();
    for kernels in kernels(1).chain(kernels(3)) {
        let [mut value, mut m] = [start[0].clone(), start[1].clone()];
        let mut v = squared.clone();
        kernels.adamw(&mut value, &mut m, &mut v, &grad, 0.5, update);
        for i in (0..count).step_by(997) {
            let g = f64::from(grad[i]) * 0.5;
            let m1 = 0.9 * f64::from(start[1][i]) + 0.1 * g;
            let v1 = 0.95 * f64::from(squared[i]) + 0.05 * g * g;
            let moved = f64::from(start[0][i]) * 0.99 - 0.1 * m1 / ((v1 * 2.0).sqrt() + 1e-8);
            assert!((f64::from(value[i]) - moved).abs() < 1e-4 * moved.abs().max(1.0), "{i}");
        }
        let squares = kernels.sum_of_squares(&grad);
        let expected: f64 = grad.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((squares - expected).abs() < 1e-9 * expected);
        found.push((vec![bits(&value), bits(&m), bits(&v)], squares.to_bits()));
    }
    assert!(found.iter().all(|f| *f == found[0]));
}

#[test]
fn products_with_few_rows() {
    let (m, n, width) = if cfg!(miri) { (5, 2, 7) } else { (150, 3, 133) };
    let mut random = Numbers::new(9);
    let (x, w) = (random.take(m * width), random.take(n * width));
    let d: Vec<f64> = wide(&random.take(m * n));
    let [one, mean, scale] = [random.take(width), random.take(width), random.take(width)];
    let dot = |a: &[f32], b: &[f32]| weighted(&wide(a), b);
    let rows = || x.chunks(width);
    let z: Vec<f64> = rows().flat_map(|x| w.chunks(width).map(move |w| dot(w, x))).collect();
    let mut sums = vec![1.0; n * width];
    for (x, d) in rows().zip(d.chunks(n)) {
        for (sums, d) in sums.chunks_mut(width).zip(d) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += d * f64::from(*x));
        }
    }
    let mut centred = Vec::new();
    for x in rows() {
        let s = dot(&one, x);
        let parts = x.iter().zip(&mean).zip(&scale);
        centred
            .extend(parts.map(|((x, m), c)| (f64::from(*x) - f64::from(*m) * s) * f64::from(*c)));
        centred.push(s);
    }
    let mut all = Vec::new();
    for kernels in kernels(1).chain(kernels(3)) {
        let mut found_z = vec![f32::NAN; m * n];
        kernels.few_dots(&mut found_z, &x, &w, width);
        close(&wide(&found_z), &z, 1e-6, "dots");
        let mut found_sums = vec![1.0; n * width];
        kernels.few_sums(&mut found_sums, &d, &x, width);
        close(&found_sums, &sums, 1e-12, "sums");
        let mut rows = vec![f32::NAN; m * (width + 1)];
        kernels.centred_rows(&mut rows, &x, &one, &mean, &scale);
        close(&wide(&rows), &centred, 1e-6, "centred");
        let mut scaled = x.clone();
        kernels.scale_columns(&mut scaled, &scale);
        let expected: Vec<f32> = x.iter().enumerate().map(|(i, x)| x * scale[i % width]).collect();
        assert_eq!(scaled, expected);
        all.push((bits(&found_z), bits(&rows), found_sums.clone()));
        // A batch may have no labelled token.
        kernels.few_sums(&mut found_sums, &[], &[], width);
        kernels.few_dots(&mut [], &[], &w, width);
        kernels.centred_rows(&mut [], &[], &one, &mean, &scale);
        close(&found_sums, &sums, 1e-12, "unchanged sums");
    }
    assert!(all.iter().all(|found| *found == all[0]), "bits differ");
}

#[test]
fn softmax_rows_are_softmaxes() {
    let (m, width) = (if cfg!(miri) { 5 } else { 70 }, 19);
    let x = Numbers::new(11).take(m * width);
    for kernels in kernels(2) {
        let (mut found, mut expected) = (x.clone(), x.clone());
        kernels.softmax_rows(&mut found, width);
        expected.chunks_exact_mut(width).for_each(specexit_kernels::softmax);
        assert_eq!(bits(&found), bits(&expected));
    }
}
