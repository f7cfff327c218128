#!/usr/bin/env python3
"""Make every golden file that the Rust parity tests read.

    pip install -r scripts/requirements.txt
    python3 scripts/make_goldens.py [--out crates/specexit-model/tests/golden] [--only PART ...]

Parts: llama3, llama2, qwen2, qwen3 (tiny checkpoints with transformers' logits and taps),
eagle3, eagle3_fused (draft heads; they read qwen3's taps), gguf (the same weights as GGUF, and
every block type), templates (renderings of our own chat templates), real (hashes of renderings of
real chat templates; needs the files of scripts/fetch_templates.py and is skipped without them),
tokenizer (a tiny BPE as tokenizer.json and as GGUF, with encodings).

Everything is drawn from seeded generators that belong to one part each, so a part can be made
again alone. The weights are small random numbers that bf16 holds exactly: an implementation that
keeps its weights in bf16 has the same weights as the reference, and any difference left is one of
arithmetic. References are computed in float32 with eager attention.
"""

import argparse
import json
import math
import os
import pathlib
import sys
import zlib

# Progress bars of the loader are noise here.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

HERE = pathlib.Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / "crates" / "specexit-model" / "tests" / "golden"
# What the files may weigh together, since every clone of the repository carries them.
SIZE_LIMIT = 900_000
FETCHED = HERE.parent / "target" / "dev-templates"

# Enough tokens for several rotary periods, few enough to keep the files small.
T = 20

# The tiny models. hidden and every other inner dimension is a multiple of 32, the block length of
# the int8 weights. With 6 layers the middle and the high tap are the same layer; qwen3's 7 tell
# them apart and make L/2 round down. qwen3 is also the one with several heads per kv head *and*
# several kv heads, and with heads * head_dim different from hidden.
TINY = {
    "llama3": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 50000.0,
        # Wavelengths here are 6.3, 24, 94, ...: one is kept, one lies between the two limits
        # (12 and 48) and the rest is stretched, so all three branches are taken.
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 48,
            "rope_type": "llama3",
        },
        "tie_word_embeddings": False,
        "vocab_size": 64,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "torch_dtype": "bfloat16",
    },
    "llama2": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        # No num_key_value_heads, no head_dim, no rope_theta: the oldest configs have none of
        # them, and mean one kv head per head, hidden / heads, and 10,000.
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "vocab_size": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float16",
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "max_window_layers": 6,
        "use_sliding_window": False,
        "sliding_window": 4,
        "rms_norm_eps": 1e-6,
        "rope_theta": 20000.0,
        "tie_word_embeddings": True,
        "vocab_size": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "vocab_size": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    },
}


def generator(part):
    import torch

    g = torch.Generator(device="cpu")
    g.manual_seed(zlib.crc32(b"specexit golden " + part.encode()))
    return g


def exact(x):
    """The nearest values that bf16 and f16 both hold, as float32."""
    import torch

    x = x.to(torch.bfloat16).float()
    # Below this f16 is subnormal and would lose bits that bf16 has.
    x = torch.where(x.abs() < 2.0**-14, torch.zeros_like(x), x)
    assert torch.equal(x, x.to(torch.bfloat16).float())
    assert torch.equal(x, x.to(torch.float16).float())
    return x


class Random:
    """Weights of a part, always drawn in the same order."""

    def __init__(self, part):
        self.g = generator(part)

    def normal(self, *shape, std=1.0, mean=0.0):
        import torch

        return exact(torch.randn(*shape, generator=self.g) * std + mean)

    def linear(self, rows, columns, gain=1.0):
        return self.normal(rows, columns, std=gain / math.sqrt(columns))

    def norm(self, n):
        return self.normal(n, std=0.25, mean=1.0)

    def ids(self, n, vocab):
        import torch

        return torch.randint(0, vocab, (n,), generator=self.g)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tap_layers(layers):
    """The layers whose *inputs* the draft head reads."""
    return [2, layers // 2, layers - 3]


# ---------------------------------------------------------------------------------------------
# Tiny checkpoints


def tiny_weights(name):
    c = TINY[name]
    r = Random(name)
    h, i, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    nh = c["num_attention_heads"]
    nkv = c.get("num_key_value_heads", nh)
    hd = c.get("head_dim", h // nh)
    w = {"model.embed_tokens.weight": r.normal(v, h)}
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        w[p + "input_layernorm.weight"] = r.norm(h)
        for part, rows in (("q", nh * hd), ("k", nkv * hd), ("v", nkv * hd)):
            # Sharper attention than 1/sqrt(K) gives, or every position would look alike.
            gain = 1.6 if part in "qk" else 1.0
            w[p + f"self_attn.{part}_proj.weight"] = r.linear(rows, h, gain)
            if c["model_type"] == "qwen2":
                w[p + f"self_attn.{part}_proj.bias"] = r.normal(rows, std=0.5)
        if c["model_type"] == "qwen3":
            w[p + "self_attn.q_norm.weight"] = r.normal(hd, std=0.4, mean=1.5)
            w[p + "self_attn.k_norm.weight"] = r.normal(hd, std=0.4, mean=1.5)
        w[p + "self_attn.o_proj.weight"] = r.linear(h, nh * hd)
        w[p + "post_attention_layernorm.weight"] = r.norm(h)
        w[p + "mlp.gate_proj.weight"] = r.linear(i, h, 1.5)
        w[p + "mlp.up_proj.weight"] = r.linear(i, h)
        w[p + "mlp.down_proj.weight"] = r.linear(h, i)
    w["model.norm.weight"] = r.norm(h)
    if not c["tie_word_embeddings"]:
        w["lm_head.weight"] = r.linear(v, h, 2.0)
    return w


def save_tensors(path, tensors, metadata=None):
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in tensors.items()}, str(path), metadata=metadata)


def write_checkpoint(folder, name, weights):
    import torch

    write_json(folder / "config.json", TINY[name])
    if name != "llama2":
        save_tensors(folder / "model.safetensors",
                     {k: v.to(torch.bfloat16) for k, v in weights.items()}, {"format": "pt"})
        return
    # Two shards, f16 but for the norms, which are f32: with the bf16 of the other models every
    # dtype that checkpoints come in is loaded, and a mixed checkpoint as well. The cut lies
    # inside a layer.
    def stored(k, v):
        return v.float() if "norm" in k else v.to(torch.float16)

    names = list(weights)
    cut = names.index("model.layers.3.self_attn.o_proj.weight")
    shards = [("model-00001-of-00002.safetensors", names[:cut]),
              ("model-00002-of-00002.safetensors", names[cut:])]
    index = {"metadata": {"total_size": 0}, "weight_map": {}}
    for file, keys in shards:
        tensors = {k: stored(k, weights[k]) for k in keys}
        save_tensors(folder / file, tensors, {"format": "pt"})
        for k in keys:
            index["metadata"]["total_size"] += tensors[k].numel() * tensors[k].element_size()
            index["weight_map"][k] = file
    index["weight_map"] = dict(sorted(index["weight_map"].items()))
    write_json(folder / "model.safetensors.index.json", index)


def reference(folder, ids):
    """transformers' own loader and forward pass on the files just written."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        out = model(input_ids=ids[None], output_hidden_states=True, use_cache=False)
    return model, out.logits[0], [x[0] for x in out.hidden_states]


def make_tiny(out, name):
    import torch

    folder = ready(out / name)
    c = TINY[name]
    weights = tiny_weights(name)
    write_checkpoint(folder, name, weights)
    ids = Random(name + " ids").ids(T, c["vocab_size"])
    # A repeated token, so that a wrong position is told from a wrong embedding.
    ids[T - 1] = ids[3]
    model, logits, states = reference(folder, ids)
    # from_pretrained is lenient about names: make sure that it used what was written.
    loaded = model.state_dict()
    for k, v in weights.items():
        assert torch.equal(loaded[k], v), k
    unknown = set(loaded) - set(weights) - {"lm_head.weight"}
    assert not unknown, unknown
    if name == "llama3":
        # The same config in the words that transformers 5 writes.
        new = {k: v for k, v in c.items()
               if k not in ("rope_theta", "rope_scaling", "torch_dtype")}
        new["dtype"] = c["torch_dtype"]
        new["rope_parameters"] = {"rope_theta": c["rope_theta"], **c["rope_scaling"]}
        write_json(folder / "config.v5.json", new)
        from transformers import LlamaConfig

        assert LlamaConfig(**new).rope_parameters == model.config.rope_parameters
        # Would the test notice if the scaling were left out?
        plain = type(model.config)(**{**c, "rope_scaling": None})
        other = type(model)(plain).eval()
        other.set_attn_implementation("eager")
        other.load_state_dict(loaded)
        with torch.no_grad():
            change = (other(input_ids=ids[None]).logits[0] - logits).abs().max().item()
        assert change > 0.1, change
    taps = torch.stack([states[i] for i in tap_layers(c["num_hidden_layers"])])
    save_tensors(folder / "golden.safetensors", {
        "input_ids": ids,
        "logits": logits,
        "taps": taps,
    }, {"tap_layers": json.dumps(tap_layers(c["num_hidden_layers"]))})
    return (f"logits {tuple(logits.shape)} std {logits.std():.2f}, "
            f"taps {tuple(taps.shape)} at {tap_layers(c['num_hidden_layers'])}")


# ---------------------------------------------------------------------------------------------
# Draft heads, written from the description of the architecture, in plain torch

EAGLE = {
    "eagle3": {
        "architectures": ["Eagle3LlamaForCausalLM"],
        "model_type": "llama",
        "target_model_type": "qwen3",
        "torch_dtype": "bfloat16",
        "head_dim": 16,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 30000.0,
        "rope_scaling": None,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "vocab_size": 256,
        "draft_vocab_size": 96,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    # fc with the three signal rows, and the full vocabulary: no d2t, no t2d.
    "eagle3_fused": {
        "architectures": ["Eagle3LlamaForCausalLM"],
        "model_type": "llama",
        "target_model_type": "qwen3",
        "torch_dtype": "bfloat16",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "vocab_size": 256,
        "draft_vocab_size": 256,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}
CHAIN_STEPS = 2


def eagle_weights(name):
    import torch

    c = EAGLE[name]
    r = Random(name)
    h, i, v, vd = c["hidden_size"], c["intermediate_size"], c["vocab_size"], c["draft_vocab_size"]
    nh, nkv = c["num_attention_heads"], c["num_key_value_heads"]
    hd = c.get("head_dim", h // nh)
    ht = TINY["qwen3"]["hidden_size"]
    fc = r.linear(h, 3 * ht)
    if name == "eagle3_fused":
        fc = torch.cat([fc, r.linear(3, 3 * ht, 0.6)])
    w = {
        "fc.weight": fc,
        "midlayer.input_layernorm.weight": r.norm(h),
        "midlayer.hidden_norm.weight": r.norm(h),
        "midlayer.self_attn.q_proj.weight": r.linear(nh * hd, 2 * h, 1.6),
        "midlayer.self_attn.k_proj.weight": r.linear(nkv * hd, 2 * h, 1.6),
        "midlayer.self_attn.v_proj.weight": r.linear(nkv * hd, 2 * h),
        "midlayer.self_attn.o_proj.weight": r.linear(h, nh * hd),
        "midlayer.post_attention_layernorm.weight": r.norm(h),
        "midlayer.mlp.gate_proj.weight": r.linear(i, h, 1.5),
        "midlayer.mlp.up_proj.weight": r.linear(i, h),
        "midlayer.mlp.down_proj.weight": r.linear(h, i),
        "norm.weight": r.norm(h),
        "lm_head.weight": r.linear(vd, h, 2.0),
    }
    extra = {}
    if vd < v:
        used = torch.randperm(v, generator=r.g)[:vd].sort().values
        extra["d2t"] = used - torch.arange(vd)
        extra["t2d"] = torch.zeros(v, dtype=torch.bool).index_fill_(0, used, True)
    return w, extra


class Eagle:
    """The reference draft head: one step at a time, over a growing cache of keys and values."""

    def __init__(self, config, weights, embedding):
        self.c, self.w, self.embedding = config, weights, embedding
        self.h = config["hidden_size"]
        self.hd = config.get("head_dim", self.h // config["num_attention_heads"])
        self.keys, self.values = [], []

    def rms(self, x, name):
        import torch

        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.c["rms_norm_eps"])
        return self.w[name] * (x * scale)

    def rope(self, x, position):
        import torch

        half = self.hd // 2
        theta = self.c.get("rope_theta", 10000.0)
        angle = position * theta ** (-torch.arange(half).double() / half)
        cos, sin = angle.cos().float(), angle.sin().float()
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    def step(self, r, token, position):
        """r [H] and the token that follows its position -> (logits, h before the last norm)."""
        import torch

        c, w, p = self.c, self.w, "midlayer."
        nh, nkv = c["num_attention_heads"], c["num_key_value_heads"]
        e = self.rms(self.embedding[token], p + "input_layernorm.weight")
        g = self.rms(r, p + "hidden_norm.weight")
        x = torch.cat([e, g])
        q = (w[p + "self_attn.q_proj.weight"] @ x).view(nh, self.hd)
        k = (w[p + "self_attn.k_proj.weight"] @ x).view(nkv, self.hd)
        v = (w[p + "self_attn.v_proj.weight"] @ x).view(nkv, self.hd)
        self.keys.append(self.rope(k, position))
        self.values.append(v)
        q = self.rope(q, position)
        keys, values = torch.stack(self.keys), torch.stack(self.values)
        heads = []
        for head in range(nh):
            kv = head // (nh // nkv)
            score = keys[:, kv] @ q[head] / math.sqrt(self.hd)
            heads.append(score.softmax(-1) @ values[:, kv])
        h = r + w[p + "self_attn.o_proj.weight"] @ torch.cat(heads)
        y = self.rms(h, p + "post_attention_layernorm.weight")
        gate = torch.nn.functional.silu(w[p + "mlp.gate_proj.weight"] @ y)
        h = h + w[p + "mlp.down_proj.weight"] @ (gate * (w[p + "mlp.up_proj.weight"] @ y))
        return w["lm_head.weight"] @ self.rms(h, "norm.weight"), h


def make_eagle(out, name):
    import torch
    from safetensors.torch import load_file

    folder = ready(out / name)
    c = EAGLE[name]
    weights, extra = eagle_weights(name)
    write_json(folder / "config.json", c)
    save_tensors(folder / "model.safetensors",
                 {**{k: v.to(torch.bfloat16) for k, v in weights.items()}, **extra},
                 {"format": "pt"})

    target = load_file(str(out / "qwen3" / "golden.safetensors"))
    ids, taps = target["input_ids"], target["taps"]
    head = Eagle(c, weights, tiny_weights("qwen3")["model.embed_tokens.weight"])
    fused = torch.cat(list(taps), dim=-1) @ weights["fc.weight"].T
    r, raw_signals = fused[:, :head.h], fused[:, head.h:]
    n = len(ids) - 1
    steps = [head.step(r[t], ids[t + 1], t) for t in range(n)]
    golden = {
        "input_ids": ids,
        "logits": torch.stack([s[0] for s in steps]),
        "hidden": torch.stack([s[1] for s in steps]),
        "fc_out": r,
    }
    if raw_signals.shape[1]:
        assert raw_signals.shape[1] == 3
        golden["signals"] = torch.stack([
            raw_signals[:, 0].sigmoid(), raw_signals[:, 1].sigmoid(), raw_signals[:, 2].exp(),
        ], dim=1)
    # Drafting on from the last position: h takes the place of fc's output.
    chain_tokens = Random(name + " chain").ids(CHAIN_STEPS, c["vocab_size"])
    h = steps[-1][1]
    logits, hidden = [], []
    for i in range(CHAIN_STEPS):
        step_logits, h = head.step(h, chain_tokens[i], n + i)
        logits.append(step_logits)
        hidden.append(h)
    golden["chain_tokens"] = chain_tokens
    golden["chain_logits"] = torch.stack(logits)
    golden["chain_hidden"] = torch.stack(hidden)
    save_tensors(folder / "golden.safetensors", golden)
    return ", ".join(f"{k} {tuple(v.shape)}" for k, v in golden.items())



def ready(folder):
    # Nothing is removed: other scripts keep files of their own beside these.
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ---------------------------------------------------------------------------------------------
# GGUF: the first layers of two tiny models, every block type, and a tokenizer

GGUF_LAYERS = 2
GGUF_T = 8
# How llama.cpp calls what a checkpoint calls otherwise.
GGUF_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def interleave(w, heads):
    """llama.cpp's "llama" rotates neighbours (0,1), (2,3), ... where the checkpoint rotates halves
    (0,n/2), (1,n/2+1), ...; its converter reorders the rows of q and k inside each head."""
    rows, columns = w.shape
    return w.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def llama3_rope_factors(c):
    """What each rotary frequency is divided by, as rope_freqs.weight holds it."""
    s = c["rope_scaling"]
    old, low, high = (s["original_max_position_embeddings"], s["low_freq_factor"],
                      s["high_freq_factor"])
    factors = []
    for i in range(c["head_dim"] // 2):
        wavelength = 2 * math.pi * c["rope_theta"] ** (2 * i / c["head_dim"])
        smooth = (old / wavelength - low) / (high - low)
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(s["factor"])
        else:
            factors.append(1 / ((1 - smooth) / s["factor"] + smooth))
    return factors


def write_gguf(path, name, weights):
    import gguf
    import numpy as np

    c = TINY[name]
    arch = c["model_type"]
    w = gguf.GGUFWriter(str(path), arch)
    w.add_name(f"tiny {name}")
    w.add_block_count(GGUF_LAYERS)
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(c["head_dim"])
    w.add_value_length(c["head_dim"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_vocab_size(c["vocab_size"])
    w.add_tokenizer_model("none")
    if arch == "llama":
        w.add_rope_dimension_count(c["head_dim"])
        w.add_tensor("rope_freqs.weight", np.array(llama3_rope_factors(c), dtype=np.float32))

    types = gguf.GGMLQuantizationType

    def add(tensor, x):
        if x.ndim == 1 or tensor == "blk.0.ffn_down.weight":
            w.add_tensor(tensor, x.numpy())
        elif arch == "llama":
            w.add_tensor(tensor, x.numpy().astype(np.float16))
        else:
            raw = gguf.quants.quantize(x.numpy(), types.BF16)
            w.add_tensor(tensor, raw, raw_dtype=types.BF16)

    for key, x in weights.items():
        if key == "model.embed_tokens.weight":
            add("token_embd.weight", x)
        elif key == "model.norm.weight":
            add("output_norm.weight", x)
        elif key == "lm_head.weight":
            add("output.weight", x)
        else:
            layer, rest = key.removeprefix("model.layers.").split(".", 1)
            if int(layer) >= GGUF_LAYERS:
                continue
            if arch == "llama" and ".q_proj" in key:
                x = interleave(x, c["num_attention_heads"])
            if arch == "llama" and ".k_proj" in key:
                x = interleave(x, c["num_key_value_heads"])
            add(f"blk.{layer}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight", x)
    close_gguf(w)


def close_gguf(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_blocks(path):
    """One tensor [2, 256] of each block type, and the values the gguf package reads from it."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(20261121)
    types = gguf.GGMLQuantizationType
    # Of each block: its bytes, and where its f16 scales lie.
    layout = {
        types.Q8_0: (34, [0]), types.Q4_0: (18, [0]), types.Q4_1: (20, [0, 2]),
        types.Q5_0: (22, [0]), types.Q5_1: (24, [0, 2]), types.Q4_K: (144, [0, 2]),
        types.Q5_K: (176, [0, 2]), types.Q6_K: (210, [208]),
    }
    w = gguf.GGUFWriter(str(path), "llama")
    values = {}
    for kind, (size, scales) in layout.items():
        elements = gguf.GGML_QUANT_SIZES[kind][0]
        assert gguf.GGML_QUANT_SIZES[kind][1] == size
        # Random bits reach every code and every sub-block scale; only the f16 scales are drawn
        # as numbers, since random bits there would be NaN or huge.
        raw = rng.integers(0, 256, (2, 256 // elements, size), dtype=np.uint8)
        for at in scales:
            d = rng.normal(0, 0.02, raw.shape[:2]).astype("<f2")
            raw[:, :, at:at + 2] = d[..., None].view(np.uint8)
        raw = raw.reshape(2, -1)
        if elements == 32:
            # The second row is a quantised one, as a real file has it.
            x = rng.normal(0, 1, (1, 256)).astype(np.float32)
            raw[1] = gguf.quants.quantize(x, kind)[0]
        w.add_tensor(kind.name, raw, raw_dtype=kind)
        values[kind.name] = gguf.quants.dequantize(raw, kind).astype(np.float32)
        assert values[kind.name].shape == (2, 256) and np.isfinite(values[kind.name]).all()
    close_gguf(w)
    return values


def make_gguf(out):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = ready(out / "gguf")
    golden = {}
    for name in ("llama3", "qwen3"):
        c = TINY[name]
        weights = tiny_weights(name)
        write_gguf(folder / f"{name}.gguf", name, weights)
        config = AutoConfig.from_pretrained(str(out / name))
        config.num_hidden_layers = GGUF_LAYERS
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:GGUF_LAYERS]
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="eager").eval()
        wrong = model.load_state_dict(weights, strict=False)
        assert set(wrong.missing_keys) <= {"lm_head.weight"}, wrong.missing_keys
        model.tie_weights()
        ids = Random(name + " gguf ids").ids(GGUF_T, c["vocab_size"])
        with torch.no_grad():
            golden[name + ".input_ids"] = ids
            golden[name + ".logits"] = model(input_ids=ids[None], use_cache=False).logits[0]
    save_tensors(folder / "golden.safetensors", golden)
    values = make_blocks(folder / "blocks.gguf")
    save_tensors(folder / "blocks.safetensors",
                 {k: torch.from_numpy(v) for k, v in values.items()})
    return ", ".join(f"{k} {tuple(v.shape)}" for k, v in golden.items()) + \
        f"; blocks {', '.join(values)}"


# What the tiny BPE vocabulary is learnt from. Paragraph ends are frequent on purpose: the tokens
# that end in two newlines are where a thought may be cut.
CORPUS = """\
The head drafts a run of tokens. The target verifies them in one forward pass.

The accepted run is kept, and the recover token follows it. Then the next round starts.

Wait, let me check that again. The sum of two and two is four.

So the answer is four. But let me verify: 2 + 2 = 4, and 4 - 2 = 2.

Alternatively, count on the fingers: one, two, three, four.

The signals are confidence, progress and remaining length.

When the confidence is high and the remaining length is small, the thought is closed.

Therefore the final answer is \\boxed{4}.

Hmm, is that right? Let me think. There're 3 spiders with 8 legs each, so 3 * 8 = 24 legs.

That's it. I'll write: "The spiders have 24 legs in all."

def verify(run, target):
    for token in run:
        if token != target:
            return False
    return True

"""
ADDED = [  # token, special
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True),
    ("<think>", False), ("</think>", False),
]
# Qwen2's pre-tokeniser, which GGUF files name "qwen2".
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = [
    "", " ", "a", "\n", "\n\n", "\n\n\n", "  \n\n  ", "Hello, world!",
    "The answer is four.\n\nWait, let me check.",
    "The answer is four.\n\n\nWait", "(4).\n\n", "4:\n\n", "code```\n\n```", "end. \n \nnext",
    "<think>\nThe sum.\n\nSo four.\n</think>\n\n4<|im_end|>\n",
    "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n<think>\n",
    "</think></think> </think>\n", "<think", "</ think>", "<|im_end", "<|endoftext|><|endoftext|>",
    "I'll say it's 12345.678, they'VE don't",
    "tabs\tand\t\ttabs   and   spaces   ", "line\r\nline\r\n\r\nline",
    "Grüße aus Köln, naïve café", "日本語のテキスト。", "🙂🙃👩‍👩‍👧 flags 🇩🇪", "∑ x² ≤ ½ → ∞",
    "\\boxed{24} $x^2$ {{ not }} {% a %} <b>&amp;</b>",
    "zero\u0000byte and \u00a0nbsp", "mixed 日本a語b 1٢٣",
]


def make_tokenizer(out):
    import gguf
    from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                            pre_tokenizers, processors, trainers)
    from tokenizers.decoders import DecodeStream

    folder = ready(out / "tokenizer")
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.train_from_iterator([CORPUS], trainers.BpeTrainer(
        vocab_size=450, min_frequency=2, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.add_tokens([AddedToken(t, special=s, normalized=False) for t, s in ADDED])
    state = json.loads(tok.to_str())
    (folder / "tokenizer.json").write_text(
        json.dumps(state, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    template = (out / "templates" / "plain.jinja").read_text(encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": False,
        "added_tokens_decoder": {
            str(tok.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False,
                                      "rstrip": False, "single_word": False, "special": s}
            for t, s in ADDED
        },
        "bos_token": None,
        "chat_template": template,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    })

    cases = []
    for text in TEXTS:
        ids = tok.encode(text, add_special_tokens=False).ids
        stream = DecodeStream(skip_special_tokens=False)
        cases.append({
            "text": text,
            "ids": ids,
            "decoded": tok.decode(ids, skip_special_tokens=False),
            "decoded_without_special": tok.decode(ids, skip_special_tokens=True),
            # What each further token adds to a stream; null while a character is incomplete.
            "stream": [stream.step(tok, i) for i in ids],
        })
    # NFC composes this; llama.cpp does not, so ids made from the GGUF may differ here.
    decomposed = "Ko\u0308ln"
    cases.append({"text": decomposed, "nfc": True,
                  "ids": tok.encode(decomposed, add_special_tokens=False).ids,
                  "decoded": "K\u00f6ln"})
    lines = ",\n".join(json.dumps(c, ensure_ascii=True) for c in cases)
    (folder / "golden.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")

    # The same vocabulary as a GGUF file without tensors.
    vocab = tok.get_vocab(with_added_tokens=True)
    tokens = sorted(vocab, key=vocab.get)
    assert [vocab[t] for t in tokens] == list(range(len(tokens)))
    kinds = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    for t, special in ADDED:
        kinds[t] = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
    merges = [" ".join(m) if isinstance(m, list) else m for m in state["model"]["merges"]]
    w = gguf.GGUFWriter(str(folder / "tokenizer.gguf"), "qwen3")
    w.add_name("tiny tokenizer")
    # llama.cpp wants a model's sizes even from a file that only has a vocabulary.
    w.add_context_length(512)
    w.add_embedding_length(32)
    w.add_block_count(1)
    w.add_feed_forward_length(32)
    w.add_head_count(2)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types([int(kinds[t]) for t in tokens])
    w.add_token_merges(merges)
    w.add_eos_token_id(vocab["<|im_end|>"])
    w.add_pad_token_id(vocab["<|endoftext|>"])
    w.add_bos_token_id(vocab["<|endoftext|>"])
    w.add_add_bos_token(False)
    w.add_chat_template(template)
    close_gguf(w)
    return f"{len(tokens)} tokens, {len(merges)} merges, {len(cases)} texts"


# ---------------------------------------------------------------------------------------------


def make_templates(out):
    import template_goldens

    return template_goldens.make_own(out / "templates")


def make_real(out):
    import template_goldens

    if not (FETCHED / "index.json").is_file():
        return "skipped, run scripts/fetch_templates.py first; the file there is kept"
    return template_goldens.make_real(out / "templates", FETCHED)


def parts():
    makers = {name: (lambda out, name=name: make_tiny(out, name)) for name in TINY}
    makers |= {name: (lambda out, name=name: make_eagle(out, name)) for name in EAGLE}
    makers |= {"gguf": make_gguf, "templates": make_templates, "real": make_real,
             "tokenizer": make_tokenizer}
    return makers


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--out", type=pathlib.Path, default=DEFAULT_OUT)
    ap.add_argument("--only", nargs="*", choices=list(parts()), default=None)
    args = ap.parse_args()

    import torch

    # More threads may split a sum differently; the files should not depend on the machine's size.
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, make in parts().items():
        if args.only is None or name in args.only:
            print(f"{name}: {make(args.out)}", flush=True)
    total = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    print(f"{total} bytes in all")
    if total > SIZE_LIMIT:
        sys.exit(f"over the limit of {SIZE_LIMIT} bytes")


if __name__ == "__main__":
    main()
