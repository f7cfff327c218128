//! A tiny model that reasons: a decoder whose output head makes each token call the next, so that
//! it thinks in paragraphs, closes the thought and gives an answer; and draft heads for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use specexit_model::head_file::{HeadConfig, HeadFile, HeadTensor};
use tempfile::TempDir;

const HIDDEN: usize = 128;
const INTERMEDIATE: usize = 64;
const LAYERS: usize = 4;
const HEADS: usize = 4;

/// Longest context of the model.
pub(crate) const CONTEXT: usize = 256;

/// What the model thinks.
pub(crate) const THINKING: &str = "Let me see.\n\nCafé table makes 3 + 4.\n\nThat is 7.\n\n\
                                   Wait, let me check.\n\n4 + 3 is 7 too.\n\nYes.\n\nSure.\n";

/// Added tokens: the specials first, then the words that the model writes.
const SPECIAL: [&str; 4] = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"];
const WORDS: [&str; 14] = [
    "<think>",
    "</think>",
    "\n\n",
    "Let me see.\n\n",
    "Caf",
    " table",
    " makes 3 + 4.\n\n",
    "That is",
    " 7.\n\n",
    "Wait, let me check.\n\n",
    "4 + 3 is 7 too.\n\n",
    "Yes.\n\n",
    "Sure.\n",
    "The answer is ",
];

const TEMPLATE: &str = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\
    <|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>\
    {% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}\
    {% endif %}";

/// A folder that is removed at the end, with the model in `model`.
pub(crate) struct Fixture {
    folder: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap() };
        write_model(&fixture.folder.path().join("model"), 1);
        fixture
    }

    /// A path inside the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The model's folder.
    pub(crate) fn model(&self) -> String {
        self.text("model")
    }

    /// Another model of the same shape.
    pub(crate) fn other_model(&self) -> String {
        write_model(&self.path("other"), 2);
        self.text("other")
    }

    /// A draft head with random weights. Its probe, if it has one, always says confidence 0.5,
    /// progress 0.5 and one token remaining.
    pub(crate) fn head(&self, probe: bool) -> String {
        let name = if probe { "specexit-head" } else { "plain-head" };
        head_file(probe).save(&self.path(name)).unwrap();
        self.text(name)
    }

    /// A file of so many questions; the model answers 7, which every fourth calls wrong.
    pub(crate) fn questions(&self, count: usize) -> String {
        let lines = (0..count).map(|i| {
            let gold = if i % 4 == 3 { 8 } else { 7 };
            json!({"id": i, "question": format!("What is 3 + {i}?"), "answer": gold}).to_string()
        });
        std::fs::write(self.path("questions.jsonl"), lines.collect::<Vec<_>>().join("\n")).unwrap();
        self.text("questions.jsonl")
    }

    /// Replaces a file of the model.
    pub(crate) fn change(&self, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let path = self.path("model").join(file);
        let bytes = change(std::fs::read(&path).unwrap());
        std::fs::write(&path, bytes).unwrap();
    }

    /// Writes the model's weights anew after a change to one tensor.
    pub(crate) fn change_tensor(&self, name: &str, change: impl FnOnce(&mut Tensor)) {
        let mut tensors = weights(1);
        change(tensors.get_mut(name).unwrap());
        save(&self.path("model").join("model.safetensors"), &tensors);
    }
}

/// Shape and numbers.
pub(crate) type Tensor = (Vec<usize>, Vec<f32>);

fn write_model(folder: &Path, seed: u64) {
    std::fs::create_dir_all(folder).unwrap();
    let write = |name: &str, value: Value| {
        std::fs::write(folder.join(name), serde_json::to_vec_pretty(&value).unwrap()).unwrap();
    };
    write("config.json", config());
    write("tokenizer.json", tokenizer());
    write("tokenizer_config.json", json!({"chat_template": TEMPLATE, "eos_token": "<|end|>"}));
    save(&folder.join("model.safetensors"), &weights(seed));
}

fn vocab_size() -> usize {
    256 + SPECIAL.len() + WORDS.len()
}

/// Id of an added token, or of a byte.
fn id(text: &str) -> usize {
    let added = SPECIAL.iter().chain(&WORDS).position(|token| *token == text);
    match (added, text.as_bytes()) {
        (Some(index), _) => 256 + index,
        (None, [byte]) => usize::from(*byte),
        _ => panic!("no token {text:?}"),
    }
}

/// The successor of every token that has one.
fn chain() -> Vec<(usize, usize)> {
    let (c3, a9) = (0xc3, 0xa9); // The two bytes of é, so that a character spans tokens.
    let mut thought =
        vec![id("<|assistant|>"), id("<think>"), id("\n"), id("Let me see.\n\n"), id("Caf")];
    thought.extend([c3, a9]);
    thought.extend(WORDS[5..13].iter().map(|word| id(word)));
    thought.extend(["</think>", "\n\n", "The answer is ", "7", "<|end|>"].map(id));
    thought.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "vocab_size": vocab_size(),
        "eos_token_id": id("<|end|>"),
    })
}

/// Byte-level, without merges: every byte its own token, and the added ones.
fn tokenizer() -> Value {
    let alphabet = byte_alphabet();
    let vocab: serde_json::Map<String, Value> =
        alphabet.iter().enumerate().map(|(byte, c)| (c.to_string(), byte.into())).collect();
    let added = SPECIAL.iter().map(|token| (token, true)).chain(WORDS.iter().map(|w| (w, false)));
    let added: Vec<Value> = added
        .map(|(token, special)| {
            json!({
                "id": id(token), "content": token, "special": special, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            })
        })
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        },
        "post_processor": null,
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// The characters that byte-level tokenizers write bytes as (GPT-2's table).
fn byte_alphabet() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    (0..256)
        .map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}

struct Numbers(ChaCha8Rng);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform numbers of variance `size²`.
    fn tensor(&mut self, shape: &[usize], size: f32) -> Tensor {
        let mut number =
            || (self.0.next_u32() as f32 / u32::MAX as f32 - 0.5) * 12f32.sqrt() * size;
        (shape.to_vec(), (0..shape.iter().product()).map(|_| number()).collect())
    }
}

fn ones(len: usize) -> Tensor {
    (vec![len], vec![1.0; len])
}

fn weights(seed: u64) -> BTreeMap<String, Tensor> {
    let mut numbers = Numbers::new(seed);
    let mut tensors = BTreeMap::new();
    let embedding = numbers.tensor(&[vocab_size(), HIDDEN], 1.0);
    let mut lm_head = numbers.tensor(&[vocab_size(), HIDDEN], 0.02);
    for (token, next) in chain() {
        // The row of the next token answers to the embedding of this one.
        let from = &embedding.1[token * HIDDEN..(token + 1) * HIDDEN];
        let row = &mut lm_head.1[next * HIDDEN..(next + 1) * HIDDEN];
        row.iter_mut().zip(from).for_each(|(weight, x)| *weight += 0.15 * x);
    }
    for layer in 0..LAYERS {
        let mut add = |name: &str, tensor| {
            tensors.insert(format!("model.layers.{layer}.{name}.weight"), tensor);
        };
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{name}"), numbers.tensor(&[HIDDEN, HIDDEN], 0.02));
        }
        for name in ["gate_proj", "up_proj"] {
            add(&format!("mlp.{name}"), numbers.tensor(&[INTERMEDIATE, HIDDEN], 0.02));
        }
        add("mlp.down_proj", numbers.tensor(&[HIDDEN, INTERMEDIATE], 0.02));
        add("input_layernorm", ones(HIDDEN));
        add("post_attention_layernorm", ones(HIDDEN));
    }
    tensors.insert("model.embed_tokens.weight".to_owned(), embedding);
    tensors.insert("model.norm.weight".to_owned(), ones(HIDDEN));
    tensors.insert("lm_head.weight".to_owned(), lm_head);
    tensors
}

fn save(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let views = tensors.iter().map(|(name, (shape, data))| {
        let bytes = bytemuck::cast_slice(data);
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn head_file(probe: bool) -> HeadFile {
    let config: HeadConfig = serde_json::from_value(json!({
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "rms_norm_eps": 1e-5,
        "vocab_size": vocab_size(),
    }))
    .unwrap();
    let mut numbers = Numbers::new(7);
    let mut tensors = BTreeMap::new();
    for (name, shape) in config.shapes() {
        let (mut shape, mut data) = match shape.len() {
            1 => ones(shape[0]),
            _ => numbers.tensor(&shape, 0.05),
        };
        if name == "fc.weight" && probe {
            shape[0] += 3;
            // Zero logits: sigmoid gives 0.5, exp gives 1.
            data.resize(shape[0] * shape[1], 0.0);
        }
        tensors.insert(name.to_owned(), HeadTensor { shape, data });
    }
    HeadFile { config, tensors, d2t: None }
}
