//! Values against the definition, gradients against differences.

use super::super::check::{gradients, numbers};
use super::*;

fn geometry(step: usize) -> AttentionStep {
    // Two sequences; queries shrink by one a step, as they do in training.
    let sequences = [(2usize, 4usize, 6usize), (0, 3, 3)];
    let mut rows = Vec::new();
    let mut query_row = 0;
    let mut key_rows = vec![vec![]; 2];
    let mut next = 0;
    for j in 0..=step {
        for (b, &(_, queries, context)) in sequences.iter().enumerate() {
            key_rows[b].push(next);
            next += if j == 0 { context } else { queries - j };
        }
    }
    for (b, &(first, queries, _)) in sequences.iter().enumerate() {
        let queries = queries - step;
        let key_rows = key_rows[b].clone();
        rows.push(SequenceRows { first, queries, query_row, key_rows });
        query_row += queries;
    }
    let rope = Arc::new(RopeTable::new(&[1.0, 0.1], 16));
    AttentionStep { heads: 4, kv_heads: 2, head_dim: 4, rope, step, sequences: rows }
}

/// Operands for `geometry(step)`: queries, keys, values.
fn operands(step: usize) -> [Tensor; 3] {
    let queries: usize = geometry(step).sequences.iter().map(|s| s.queries).sum();
    let keys = 9 + (1..=step).map(|j| 7 - 2 * j).sum::<usize>();
    [
        tensor(numbers(1, queries * 16), (queries, 16)).unwrap(),
        tensor(numbers(2, keys * 8), (keys, 8)).unwrap(),
        tensor(numbers(3, keys * 8), (keys, 8)).unwrap(),
    ]
}

/// One query head of one row, written out from the definition.
fn expected(g: &AttentionStep, q: &[f32], k: &[f32], v: &[f32], b: usize, i: usize) -> Vec<f32> {
    let s = &g.sequences[b];
    let turned = |row: &[f32], position: usize| {
        let mut row = row.to_vec();
        g.rotate(&mut row, position, 1.0);
        row
    };
    let mut out = Vec::new();
    for h in 0..4 {
        let query = turned(&q[(s.query_row + i) * 16 + h * 4..][..4], s.first + i + g.step);
        let mut keys: Vec<(usize, usize)> =
            (0..=s.first + i).map(|p| (s.key_rows[0] + p, p)).collect();
        keys.extend((1..=g.step).map(|j| (s.key_rows[j] + i, s.first + i + j)));
        let at = |row: usize| row * 8 + h / 2 * 4;
        let score =
            |&(row, p): &(usize, usize)| (dot(&query, &turned(&k[at(row)..][..4], p)) / 2.0).exp();
        let total: f32 = keys.iter().map(score).sum();
        let mut sum = vec![0f32; 4];
        for key in &keys {
            add_scaled(&mut sum, score(key) / total, &v[at(key.0)..][..4]);
        }
        out.extend(sum);
    }
    out
}

#[test]
fn values_follow_the_definition() {
    for step in 0..3 {
        let g = geometry(step);
        let x = operands(step);
        let [q, k, v] = x.each_ref().map(|t| t.flatten_all().unwrap().to_vec1().unwrap());
        let y = attention(&x[0], &x[1], &x[2], g.clone()).unwrap().to_vec2::<f32>().unwrap();
        for (b, s) in g.sequences.iter().enumerate() {
            for i in 0..s.queries {
                for (y, e) in y[s.query_row + i].iter().zip(expected(&g, &q, &k, &v, b, i)) {
                    assert!((y - e).abs() < 1e-5, "step {step} sequence {b} row {i}");
                }
            }
        }
    }
}

#[test]
fn gradients_agree_with_differences() {
    for step in 0..3 {
        let x = operands(step);
        gradients(&x, |x| attention(&x[0], &x[1], &x[2], geometry(step)));
    }
}
