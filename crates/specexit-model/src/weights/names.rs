//! From llama.cpp's tensor names and row order to Hugging Face's.

use super::metadata::GgufMetadata;
use crate::error::Result;

/// Longest tensor name or metadata key; real ones have some 50 characters.
const MAX_NAME: usize = 200;

/// Checks that a name read from a file is one: names appear in error messages and on terminals.
pub(super) fn check_name(name: &str) -> std::result::Result<(), String> {
    if name.len() <= MAX_NAME && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let start: String = name.chars().take(20).flat_map(char::escape_default).collect();
    Err(format!("it holds a name that is none (`{start}…`)"))
}

/// The canonical name of a GGUF tensor; names outside the Llama family stay as they are.
pub(super) fn canonical(name: &str) -> String {
    match name {
        "token_embd.weight" => return "model.embed_tokens.weight".to_owned(),
        "output_norm.weight" => return "model.norm.weight".to_owned(),
        "output.weight" => return "lm_head.weight".to_owned(),
        _ => {}
    }
    layer_part(name)
        .and_then(|(layer, part, kind)| {
            let part = match part {
                "attn_norm" => "input_layernorm",
                "attn_q" => "self_attn.q_proj",
                "attn_k" => "self_attn.k_proj",
                "attn_v" => "self_attn.v_proj",
                "attn_output" => "self_attn.o_proj",
                "attn_q_norm" => "self_attn.q_norm",
                "attn_k_norm" => "self_attn.k_norm",
                "ffn_norm" => "post_attention_layernorm",
                "ffn_gate" => "mlp.gate_proj",
                "ffn_up" => "mlp.up_proj",
                "ffn_down" => "mlp.down_proj",
                _ => return None,
            };
            Some(format!("model.layers.{layer}.{part}.{kind}"))
        })
        .unwrap_or_else(|| name.to_owned())
}

/// `blk.12.attn_q.weight` → (12, `attn_q`, `weight`).
fn layer_part(name: &str) -> Option<(usize, &str, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = rest.split_once('.')?;
    Some((layer.parse().ok()?, part, kind))
}

/// How many heads' rows llama.cpp's converter interleaved in `attn_q` and `attn_k`.
///
/// For the `llama` architecture ggml rotates neighbouring pairs, Hugging Face's code the two halves
/// of a head; the converter reorders the rows to make up for it, and this undoes that. Other
/// architectures keep the order.
pub(super) struct RowOrder {
    /// (query heads, key heads) where rows must be put back.
    heads: Option<(usize, usize)>,
}

impl RowOrder {
    pub(super) fn of(metadata: &GgufMetadata) -> Result<Self> {
        if metadata.text("general.architecture")? != Some("llama") {
            return Ok(Self { heads: None });
        }
        let query = metadata.size("llama.attention.head_count")?;
        let key = metadata.size("llama.attention.head_count_kv")?.or(query);
        Ok(Self { heads: query.zip(key) })
    }

    /// The number of heads to put back in order in the tensor of that (GGUF) name, if any.
    pub(super) fn heads_to_unpermute(&self, name: &str, shape: &[usize]) -> Option<usize> {
        let (query, key) = self.heads?;
        let heads = match layer_part(name) {
            Some((_, "attn_q", _)) => query,
            Some((_, "attn_k", _)) => key,
            _ => return None,
        };
        // Rows that are not whole pairs per head cannot have been interleaved; the shape check of
        // whoever reads the tensor reports them.
        let rows = shape.first().copied().unwrap_or(0);
        let whole = heads.checked_mul(2).is_some_and(|pairs| pairs > 0 && rows % pairs == 0);
        whole.then_some(heads)
    }
}

/// Where row `row` of the Hugging Face order lies among rows that llama.cpp interleaved.
///
/// The converter turns each head's `[2, half]` rows into `[half, 2]`.
pub(super) fn interleaved_row(row: usize, rows: usize, heads: usize) -> usize {
    let width = rows / heads;
    let half = width / 2;
    let (head, within) = (row / width, row % width);
    head * width + (within % half) * 2 + within / half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_checkpoint() {
        assert_eq!(canonical("token_embd.weight"), "model.embed_tokens.weight");
        assert_eq!(canonical("blk.11.attn_q.bias"), "model.layers.11.self_attn.q_proj.bias");
        assert_eq!(canonical("blk.0.ffn_down.weight"), "model.layers.0.mlp.down_proj.weight");
        assert_eq!(canonical("rope_freqs.weight"), "rope_freqs.weight");
        assert_eq!(canonical("blk.x.attn_q.weight"), "blk.x.attn_q.weight");
    }

    #[test]
    fn interleaving_matches_the_converter() {
        // numpy: arange(8).reshape(2, 2, 2).swapaxes(1, 2).reshape(8) for two heads of width four.
        let stored_from_hf = [0, 2, 1, 3, 4, 6, 5, 7];
        for (stored, hf) in stored_from_hf.into_iter().enumerate() {
            assert_eq!(interleaved_row(hf, 8, 2), stored);
        }
    }
}
