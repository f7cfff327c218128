//! The decoder on candle's tape, from operations whose gradients are checked one by one.

use std::sync::Arc;

use candle_core::{Tensor, Var};
use specexit_kernels::{Isa, Kernels, Precision};

use super::shape::{EMBEDDING, LayerTensor};
use super::*;
use crate::net::params::Param;
use crate::ops::check::{numbers, relative};
use crate::ops::with_numbers;
use crate::ops::{Projection, attention, rms_norm, silu_mul, soft_cross_entropy};

pub(super) fn tiny() -> DecoderShape {
    DecoderShape {
        vocab_size: 40,
        hidden_size: 24,
        intermediate_size: 36,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        max_position_embeddings: 64,
    }
}

/// Parameters with spread enough that no gradient is tiny.
pub(super) fn params(shape: &DecoderShape, seed: u64) -> Vec<Param> {
    let mut params = shape.fresh_params(3);
    for (i, p) in params.iter_mut().enumerate() {
        let noise = numbers(seed + i as u64, p.value.len());
        // Matrices anew: fresh ones give sharper attention, which enlarges what rounding does.
        let (middle, spread) = if p.decays { (0.0, 0.3) } else { (1.0, 0.2) };
        p.value.iter_mut().zip(noise).for_each(|(v, n)| *v = middle + spread * n);
    }
    params
}

pub(super) fn batch(shape: &DecoderShape) -> TextBatch {
    let mut batch = TextBatch::default();
    for (seed, (length, loss_from)) in [(23, 5), (2, 1), (41, 0)].into_iter().enumerate() {
        let text: Vec<u32> = numbers(seed as u64 + 1, length)
            .iter()
            .map(|x| ((x + 1.0) / 2.0 * shape.vocab_size as f32) as u32)
            .collect();
        batch.push(&text, loss_from);
    }
    batch
}

/// Summed loss and its gradients.
fn on_tape(
    shape: &DecoderShape,
    params: &[Param],
    batch: &TextBatch,
) -> Result<(f64, Vec<Vec<f32>>)> {
    let decoder = Plain::new(shape, Gemm::Candle);
    let vars: Vec<Var> = params.iter().map(|p| p.var().unwrap()).collect();
    let at = |i: usize| vars[i].as_tensor().clone();
    let linear = |x: &Tensor, w: Tensor| Projection::new(w, &Gemm::Candle)?.apply(x);
    let (q, kv, hd, eps) = (shape.q(), shape.kv(), shape.head_dim, shape.eps());
    let rows = batch.rows();
    let ids = Tensor::new(batch.tokens.as_slice(), &candle_core::Device::Cpu)?;
    let mut x = at(EMBEDDING).index_select(&ids, 0)?;
    for layer in 0..shape.num_hidden_layers {
        let of = |which| at(DecoderShape::index(layer, which));
        let normed = rms_norm(&x, &of(LayerTensor::InputNorm), eps)?;
        let qkv = linear(&normed, of(LayerTensor::Qkv))?;
        let heads = |from: usize, width: usize, which| {
            let part = qkv.narrow(1, from, width)?.contiguous()?;
            rms_norm(&part.reshape((rows * width / hd, hd))?, &of(which), eps)?
                .reshape((rows, width))
        };
        let queries = heads(0, q, LayerTensor::QNorm)?;
        let keys = heads(q, kv, LayerTensor::KNorm)?;
        let values = qkv.narrow(1, q + kv, kv)?.contiguous()?;
        let attended = attention(&queries, &keys, &values, decoder.attention(batch))?;
        x = (x + linear(&attended, of(LayerTensor::O))?)?;
        let normed = rms_norm(&x, &of(LayerTensor::PostNorm), eps)?;
        let gate_up = linear(&normed, of(LayerTensor::GateUp))?;
        let i = shape.intermediate_size;
        let gate = gate_up.narrow(1, 0, i)?.contiguous()?;
        let up = gate_up.narrow(1, i, i)?.contiguous()?;
        x = (x + linear(&silu_mul(&gate, &up)?, of(LayerTensor::Down))?)?;
    }
    let ids = Tensor::new(batch.loss_rows.as_slice(), &candle_core::Device::Cpu)?;
    let last = rms_norm(&x.index_select(&ids, 0)?, &at(shape.final_norm()), eps)?;
    let logits = linear(&last, at(EMBEDDING))?;
    let mut probs = vec![0f32; batch.targets.len() * shape.vocab_size];
    for (row, &target) in probs.chunks_exact_mut(shape.vocab_size).zip(&batch.targets) {
        row[target as usize] = 1.0;
    }
    let count = batch.targets.len();
    let loss =
        soft_cross_entropy(&logits, Arc::new(probs), (0..count).collect(), vec![1.0; count])?;
    let grads = loss.backward()?;
    let grads = vars.iter().map(|v| with_numbers(grads.get(v).unwrap(), |g| Ok(g.to_vec())));
    Ok((f64::from(loss.to_scalar::<f32>()?), grads.collect::<Result<_>>()?))
}

/// Summed loss and its gradients, by way of a scale and of gradients that are there already.
fn by_hand(decoder: &mut Decoder, params: &[Param], batch: &TextBatch) -> (f64, Vec<Vec<f32>>) {
    let (scale, there) = (4.0, 2.0);
    let mut grads: Vec<Vec<f32>> = params.iter().map(|p| vec![there; p.value.len()]).collect();
    let batches = [batch.clone()];
    let loss = decoder.gradients(params, &batches, scale, &mut grads).unwrap();
    let forward = decoder.loss(params, &batches).unwrap();
    assert!((forward - loss).abs() < 1e-9 * loss, "{forward} {loss}");
    grads.iter_mut().flatten().for_each(|g| *g = (*g - there) / scale);
    (loss, grads)
}

/// The largest relative difference from the expected loss and gradients.
fn difference(found: &(f64, Vec<Vec<f32>>), expected: &(f64, Vec<Vec<f32>>)) -> f64 {
    let gradients = found.1.iter().zip(&expected.1).map(|(f, e)| relative(f, e));
    gradients.fold((found.0 - expected.0).abs() / expected.0, f64::max)
}

#[test]
fn gradients_are_those_of_the_tape() {
    let shape = tiny();
    let (params, batch) = (params(&shape, 50), batch(&shape));
    let expected = on_tape(&shape, &params, &batch).unwrap();
    let mut plain =
        Decoder::Plain(Box::new(Plain::new(&shape, Gemm::new(Products::F32, &all_cores()))));
    let mut fast = Decoder::new(&shape, Products::Bf16, &all_cores());
    // Twice, because buffers are used again.
    for _ in 0..2 {
        let off = difference(&by_hand(&mut plain, &params, &batch), &expected);
        assert!(off < 2e-6, "{off}");
        let off = difference(&by_hand(&mut fast, &params, &batch), &expected);
        assert!(off < 4e-2, "{off}");
    }
}

#[test]
fn the_fast_decoder_is_the_plain_one_with_rounded_factors() {
    let (shape, batch) = (tiny(), batch(&tiny()));
    let mut plain =
        Decoder::Plain(Box::new(Plain::new(&shape, Gemm::new(Products::Bf16, &all_cores()))));
    let expected: Vec<_> = (0..12)
        .map(|seed| {
            let params = params(&shape, 50 * seed);
            let gradients = by_hand(&mut plain, &params, &batch);
            (params, gradients)
        })
        .collect();
    for isa in Isa::available() {
        let kernels = Arc::new(Kernels::with_isa(2, Precision::Bf16, isa));
        let mut fast = Decoder::new(&shape, Products::Bf16, &kernels);
        let mut off: Vec<f64> = expected
            .iter()
            .map(|(params, expected)| difference(&by_hand(&mut fast, params, &batch), expected))
            .collect();
        off.sort_by(f64::total_cmp);
        // Only the order of sums differs. Where a sum thereby falls on the other side of a rounding
        // limit, more does; how often depends on the vectors, but never is it always so.
        assert!(off[4] < 2e-5 && off[11] < 3e-3, "{isa:?} {off:?}");
    }
}
