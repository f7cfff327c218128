//! One decoder layer of the Llama family: the part that targets and the draft head share.

use specexit_kernels::{
    AttentionSequence, AttentionShape, Kernels, Matrix, NewRows, Positioning, RopeTable,
};

use crate::kv_cache::KvCache;

/// Sizes of the attention block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionSizes {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl AttentionSizes {
    pub(crate) fn q(self) -> usize {
        self.heads * self.head_dim
    }

    pub(crate) fn kv(self) -> usize {
        self.kv_heads * self.head_dim
    }

    pub(crate) fn qkv(self) -> usize {
        self.q() + 2 * self.kv()
    }
}

/// `q_proj`, `k_proj`, `v_proj` stacked, `o_proj`, and the family's extras.
pub(crate) struct Attention {
    pub(crate) sizes: AttentionSizes,
    /// `[(heads + 2 kv_heads) * head_dim, in]`.
    pub(crate) qkv_proj: Matrix,
    /// Qwen2 only.
    pub(crate) qkv_bias: Option<Vec<f32>>,
    /// Qwen3 only: weights of the per-head norms of queries and keys, `[head_dim]`.
    pub(crate) qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    /// `[hidden, heads * head_dim]`.
    pub(crate) o_proj: Matrix,
}

/// `gate_proj` and `up_proj` stacked, and `down_proj`.
pub(crate) struct Mlp {
    /// `[2 * intermediate, hidden]`.
    pub(crate) gate_up_proj: Matrix,
    /// `[hidden, intermediate]`.
    pub(crate) down_proj: Matrix,
}

/// Rows of one sequence inside a batch and the cache they extend.
pub(crate) struct Span<'a> {
    pub(crate) rows: std::ops::Range<usize>,
    pub(crate) cache: &'a mut KvCache,
}

/// Buffers of one layer, grown to the largest batch seen and then reused.
#[derive(Default)]
pub(crate) struct LayerBuffers {
    qkv: Vec<f32>,
    attn: Vec<f32>,
    gate_up: Vec<f32>,
    mlp: Vec<f32>,
}

/// The first `len` elements of a buffer that only ever grows.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

impl Attention {
    /// Adds the attention of normed rows `x` `[m, in]` onto `residual` `[m, hidden]`,
    /// appending the rows' keys and values to each span's cache at `layer`.
    #[allow(clippy::too_many_arguments, reason = "the data flow of one block")]
    pub(crate) fn forward(
        &self,
        kernels: &Kernels,
        residual: &mut [f32],
        x: &[f32],
        positions: &[u32],
        rope: &RopeTable,
        eps: f32,
        layer: usize,
        spans: &mut [Span<'_>],
        buffers: &mut LayerBuffers,
    ) {
        let AttentionSizes { heads, kv_heads, head_dim } = self.sizes;
        let (q, stride) = (self.sizes.q(), self.sizes.qkv());
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = AttentionShape { heads, kv_heads, head_dim, scale };
        let rows = positions.len();
        let qkv = sized(&mut buffers.qkv, rows * stride);
        kernels.linear(qkv, x, &self.qkv_proj, self.qkv_bias.as_deref());
        let norms = self.qk_norm.as_ref().map(|(q_norm, k_norm)| ([&q_norm[..], &k_norm[..]], eps));
        let mut new: Vec<NewRows<'_>> = spans
            .iter_mut()
            .map(|s| NewRows { rows: s.rows.clone(), cache: s.cache.layer_mut(layer) })
            .collect();
        kernels.append(qkv, shape, Positioning { norms, rope, positions }, &mut new);
        let sequences: Vec<AttentionSequence<'_>> = spans
            .iter()
            .map(|s| AttentionSequence {
                rows: s.rows.clone(),
                start: s.cache.len(),
                cache: s.cache.layer(layer),
            })
            .collect();
        let attn = sized(&mut buffers.attn, rows * q);
        kernels.attention(attn, qkv, stride, shape, &sequences);
        kernels.linear_add(residual, attn, &self.o_proj);
    }
}

impl Mlp {
    /// Adds the SwiGLU block of normed rows `x` `[m, hidden]` onto `residual` `[m, hidden]`.
    pub(crate) fn forward(
        &self,
        kernels: &Kernels,
        residual: &mut [f32],
        x: &[f32],
        buffers: &mut LayerBuffers,
    ) {
        let width = self.down_proj.cols();
        let rows = residual.len() / self.down_proj.rows();
        let gate_up = sized(&mut buffers.gate_up, rows * 2 * width);
        kernels.linear(gate_up, x, &self.gate_up_proj, None);
        let mlp = sized(&mut buffers.mlp, rows * width);
        kernels.silu_mul(mlp, gate_up, width);
        kernels.linear_add(residual, mlp, &self.down_proj);
    }
}
