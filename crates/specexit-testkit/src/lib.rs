//! Tiny random models and draft heads for tests: real files in the real layouts, a few hundred KB.
//!
//! Nothing here is trained. A random model is still a deterministic function of its tokens, which is all
//! that tests of speculation, exits and file formats need.

mod browser;
mod markup;
mod server;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use specexit_model::head_file::{HeadConfig, HeadFile, HeadTensor};
use specexit_model::probe::{PROBE_DRAFT, PROBE_DRAFT_BIAS, PROBE_ROWS};

pub use browser::browser;
pub use markup::{markup_problem, plotted_points, table_rows};
pub use server::{Fault, Habits, MockServer, SERVED, Script};

/// Hidden size of the tiny model.
pub const HIDDEN: usize = 64;
/// Layers of the tiny model.
pub const LAYERS: usize = 6;
/// Tokens: 256 bytes, three merges with newlines, four special tokens, and padding.
pub const VOCAB: usize = 288;
/// The end-of-sequence token.
pub const EOS: u32 = 259;
/// The token `<think>`.
pub const THINK: u32 = 261;
/// The token `</think>`, the end-of-thinking token.
pub const END_THINK: u32 = 262;
/// The token of two newlines.
pub const BLANK_LINE: u32 = 256;

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const INTERMEDIATE: usize = 96;

/// Small deterministic noise: splitmix64 mapped to [-1, 1).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A tensor whose rows keep the size of their inputs; vectors are norms, around one.
    fn tensor(&mut self, shape: &[usize]) -> HeadTensor {
        let scale = match shape {
            [_, cols] => (3.0 / *cols as f32).sqrt(),
            _ => 0.1,
        };
        let offset = if shape.len() == 1 { 1.0 } else { 0.0 };
        let len = shape.iter().product();
        let data = (0..len).map(|_| offset + scale * self.next()).collect();
        HeadTensor { shape: shape.to_vec(), data }
    }
}

/// Writes a Qwen3-shaped model with tokenizer and chat template into `dir`.
///
/// # Errors
/// The operating system's refusal to write.
pub fn write_model(dir: &Path, seed: u64) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut noise = Noise(seed);
    let mut tensors = BTreeMap::new();
    for (name, shape) in model_shapes() {
        tensors.insert(name, noise.tensor(&shape));
    }
    write_tensors(&dir.join("model.safetensors"), &tensors)?;
    write_json(&dir.join("config.json"), &model_config())?;
    write_json(&dir.join("tokenizer.json"), &tokenizer())?;
    write_json(
        &dir.join("tokenizer_config.json"),
        &json!({ "eos_token": "<|endoftext|>", "chat_template": TEMPLATE }),
    )
}

/// A chat template that opens the thought unless told not to think.
const TEMPLATE: &str = "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}\n{% endfor %}\
{% if add_generation_prompt %}<|turn|>assistant\n\
{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n\
{% else %}<think>\n{% endif %}{% endif %}";

/// Writes a draft head for the tiny model, with a signal probe or without, into `dir`.
///
/// # Errors
/// The operating system's refusal to write.
pub fn write_head(dir: &Path, seed: u64, draft_vocab: usize, probe: bool) -> io::Result<()> {
    let head = head_file(seed, draft_vocab, probe)?;
    head.save(dir).map_err(io::Error::other)
}

/// As [`write_head`], with a probe that reads the draft layer's outputs.
///
/// # Errors
/// The operating system's refusal to write.
pub fn write_head_with_draft_probe(dir: &Path, seed: u64, draft_vocab: usize) -> io::Result<()> {
    let mut head = head_file(seed, draft_vocab, false)?;
    let mut noise = Noise(seed.wrapping_add(1));
    let weight = noise.tensor(&[PROBE_ROWS, HIDDEN]);
    let bias = (0..PROBE_ROWS).map(|_| 0.5 * noise.next()).collect();
    let bias = HeadTensor { shape: vec![PROBE_ROWS], data: bias };
    head.tensors
        .extend([(PROBE_DRAFT, weight), (PROBE_DRAFT_BIAS, bias)].map(|(n, t)| (n.to_owned(), t)));
    head.save(dir).map_err(io::Error::other)
}

/// A random draft head for the tiny model.
///
/// # Errors
/// Never in practice: a config that does not parse.
pub fn head_file(seed: u64, draft_vocab: usize, probe: bool) -> io::Result<HeadFile> {
    let config: HeadConfig = serde_json::from_value(json!({
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCAB,
        "draft_vocab_size": draft_vocab,
        "max_position_embeddings": 2048,
    }))?;
    let mut noise = Noise(seed);
    let mut tensors = BTreeMap::new();
    for (name, mut shape) in config.shapes() {
        if name == "fc.weight" && probe {
            shape[0] += PROBE_ROWS;
        }
        tensors.insert(name.to_owned(), noise.tensor(&shape));
    }
    // Every third token is unknown to a reduced vocabulary, so that drafts can never cover all.
    let d2t = (draft_vocab < VOCAB).then(|| {
        let known = (0..VOCAB as u32).filter(|id| id % 3 != 1).take(draft_vocab);
        known.collect::<Vec<u32>>()
    });
    Ok(HeadFile { config, tensors, d2t })
}

fn model_shapes() -> Vec<(String, Vec<usize>)> {
    let (h, i) = (HIDDEN, INTERMEDIATE);
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, h]),
        ("model.norm.weight".to_owned(), vec![h]),
        // Tied, a random model repeats its last token for ever.
        ("lm_head.weight".to_owned(), vec![VOCAB, h]),
    ];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![h]),
            ("self_attn.q_proj", vec![q, h]),
            ("self_attn.k_proj", vec![kv, h]),
            ("self_attn.v_proj", vec![kv, h]),
            ("self_attn.o_proj", vec![h, q]),
            ("self_attn.q_norm", vec![HEAD_DIM]),
            ("self_attn.k_norm", vec![HEAD_DIM]),
            ("post_attention_layernorm", vec![h]),
            ("mlp.gate_proj", vec![i, h]),
            ("mlp.up_proj", vec![i, h]),
            ("mlp.down_proj", vec![h, i]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    shapes
}

fn model_config() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "vocab_size": VOCAB,
        "eos_token_id": EOS,
        "torch_dtype": "float32",
    })
}

/// The printable stand-in of each byte in byte-level BPE.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let index = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + index).unwrap_or(' ')
}

fn tokenizer() -> Value {
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255u8 {
        vocab.insert(byte_char(byte).to_string(), json!(byte));
    }
    for (id, text) in (256u32..).zip(["ĊĊ", ".ĊĊ", "ĠĊĊ"]) {
        vocab.insert(text.to_owned(), json!(id));
    }
    let specials = (EOS..).zip(["<|endoftext|>", "<|turn|>", "<think>", "</think>"]);
    let added: Vec<Value> = specials
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": !content.contains("think"),
            })
        })
        .collect();
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab,
            "merges": [["Ċ", "Ċ"], [".", "ĊĊ"], ["Ġ", "ĊĊ"]],
        },
    })
}

fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(value)?)
}

fn write_tensors(path: &Path, tensors: &BTreeMap<String, HeadTensor>) -> io::Result<()> {
    let bytes: Vec<(&str, &HeadTensor, Vec<u8>)> = tensors
        .iter()
        .map(|(name, t)| (name.as_str(), t, t.data.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, tensor, data)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), data);
        view.map(|view| (*name, view)).map_err(io::Error::other)
    });
    let views = views.collect::<io::Result<Vec<_>>>()?;
    let blob = safetensors::serialize(views, None).map_err(io::Error::other)?;
    std::fs::write(path, blob)
}
