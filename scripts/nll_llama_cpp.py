#!/usr/bin/env python3
"""Per-token negative log-likelihood of given token ids under llama.cpp, as a peer to compare with.

    python3 scripts/nll_llama_cpp.py MODEL.gguf --items IDS.jsonl --out RESULT.json
    python3 scripts/nll_llama_cpp.py MODEL.gguf --questions QUESTIONS.jsonl --limit 20 \
        --ids-out IDS.jsonl --out RESULT.json

IDS.jsonl has one {"id", "token_ids", "start"} per line: tokens start.. are scored given all tokens
before them (start is at least 1). Ids go to the model as they are: nothing adds a BOS token.
With --questions the text is question + "\\n" + answer of each row, tokenised by llama.cpp without
BOS, chat template or special-token parsing, and scored from token 1; --ids-out keeps text and ids,
so that another implementation can be run on the same ids and compare its own tokenisation.

Needs llama-cpp-python. NLL is in nats. "mean_nll" is over all scored tokens of the file,
"mean_of_items" the plain mean of the items' means.
"""

import argparse
import ctypes
import hashlib
import json
import pathlib
import sys

import llama_cpp
import numpy as np


def quiet():
    # Kept in a global: llama.cpp holds the pointer for as long as the process lives.
    global _log

    @llama_cpp.llama_log_callback
    def _log(level, text, user_data):
        if level == 4:  # errors; 5 continues a line of any level
            sys.stderr.write(text.decode("utf-8", "replace"))

    llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))


def tokenize(vocab, text):
    raw = text.encode("utf-8")
    room = len(raw) + 8
    buffer = (llama_cpp.llama_token * room)()
    n = llama_cpp.llama_tokenize(vocab, raw, len(raw), buffer, room, False, False)
    if n < 0:
        sys.exit(f"tokenising failed: {text[:60]!r}")
    return list(buffer[:n])


def from_questions(vocab, path, limit):
    with open(path, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f if line.strip()]
    items = []
    for i, row in enumerate(rows[:limit]):
        text = row["question"] + "\n" + row["answer"]
        items.append({"id": f"{path.stem}-{i}", "text": text,
                      "token_ids": tokenize(vocab, text), "start": 1})
    return items


class Model:
    def __init__(self, path, threads, context, kv_f32):
        llama_cpp.llama_backend_init()
        mp = llama_cpp.llama_model_default_params()
        mp.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), mp)
        if not self.model:
            sys.exit(f"cannot load {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        cp = llama_cpp.llama_context_default_params()
        cp.n_ctx = context
        # One item is one batch: with every token in one llama_decode call no state is shared
        # between items but the cleared cache.
        cp.n_batch = context
        cp.n_ubatch = 512
        cp.n_threads = cp.n_threads_batch = threads
        if kv_f32:
            cp.type_k = cp.type_v = 0  # GGML_TYPE_F32
            # Flash attention would round what it reads to f16 all the same.
            cp.flash_attn_type = 0
        self.ctx = llama_cpp.llama_init_from_model(self.model, cp)
        if not self.ctx:
            sys.exit("cannot make a context")
        self.context = context
        self.batch = llama_cpp.llama_batch_init(context, 0, 1)

    def nll(self, ids, start):
        n = len(ids)
        if not 1 <= start < n:
            sys.exit(f"start {start} of {n} tokens leaves nothing to score")
        if n > self.context:
            sys.exit(f"{n} tokens, context is {self.context}: raise --context")
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.ctx), True)
        b = self.batch
        b.n_tokens = n
        for i, token in enumerate(ids):
            b.token[i] = token
            b.pos[i] = i
            b.n_seq_id[i] = 1
            b.seq_id[i][0] = 0
            # The state at i predicts token i + 1.
            b.logits[i] = start - 1 <= i < n - 1
        if llama_cpp.llama_decode(self.ctx, b) != 0:
            sys.exit("llama_decode failed")
        out = []
        for i in range(start - 1, n - 1):
            row = np.ctypeslib.as_array(
                llama_cpp.llama_get_logits_ith(self.ctx, i), shape=(self.n_vocab,)
            ).astype(np.float64)
            top = row.max()
            out.append(top + np.log(np.exp(row - top).sum()) - row[ids[i + 1]])
        return out


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("model", type=pathlib.Path)
    source = ap.add_mutually_exclusive_group(required=True)
    source.add_argument("--items", type=pathlib.Path)
    source.add_argument("--questions", type=pathlib.Path)
    ap.add_argument("--limit", type=int, default=20, help="rows taken from either file")
    ap.add_argument("--ids-out", type=pathlib.Path)
    ap.add_argument("--out", type=pathlib.Path)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--context", type=int, default=2048)
    ap.add_argument("--kv", choices=["f16", "f32"], default="f16",
                    help="f16: llama.cpp's defaults; f32: KV cache in f32, no flash attention")
    ap.add_argument("--per-token", action="store_true", help="put every token's NLL into --out")
    args = ap.parse_args()

    quiet()
    model = Model(args.model, args.threads, args.context, args.kv == "f32")
    if args.questions:
        items = from_questions(model.vocab, args.questions, args.limit)
    else:
        with open(args.items, encoding="utf-8") as f:
            items = [json.loads(line) for line in f if line.strip()][:args.limit]
    if args.ids_out:
        with open(args.ids_out, "w", encoding="utf-8") as f:
            for item in items:
                f.write(json.dumps(item, ensure_ascii=False) + "\n")

    results, total, scored = [], 0.0, 0
    for item in items:
        nll = model.nll(item["token_ids"], item["start"])
        result = {"id": item["id"], "tokens": len(item["token_ids"]), "start": item["start"],
                  "scored": len(nll), "nll_sum": sum(nll), "nll_mean": sum(nll) / len(nll)}
        if args.per_token:
            result["nll"] = [round(float(x), 6) for x in nll]
        results.append(result)
        total += sum(nll)
        scored += len(nll)
        print(f"{item['id']}: {result['nll_mean']:.6f} over {len(nll)} tokens", flush=True)
    mean_of_items = sum(r["nll_mean"] for r in results) / len(results)
    print(f"mean per token {total / scored:.6f} ({scored} tokens), mean of items {mean_of_items:.6f}")
    if args.out:
        args.out.write_text(json.dumps({
            "model": args.model.name,
            "model_sha256": sha256_of(args.model),
            "llama_cpp_python": llama_cpp.__version__,
            "system": llama_cpp.llama_print_system_info().decode().strip(),
            "threads": args.threads,
            "kv": args.kv,
            "mean_nll": total / scored,
            "mean_of_items": mean_of_items,
            "scored": scored,
            "items": results,
        }, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
