#!/usr/bin/env python3
"""NLL of given token ids under a GGUF file's weights, dequantised, in float32 by transformers.

    python3 scripts/nll_transformers.py MODEL.gguf --items IDS.jsonl --out RESULT.json

Same items and same output as nll_llama_cpp.py. llama.cpp rounds activations to 8 bits for
quantised weights; here nothing is rounded but the weights themselves, so this is the number an
exact implementation of the same file should come nearest to.
"""

import argparse
import json
import pathlib

import torch
import transformers
from transformers import AutoModelForCausalLM


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("model", type=pathlib.Path)
    ap.add_argument("--items", type=pathlib.Path, required=True)
    ap.add_argument("--limit", type=int, default=20)
    ap.add_argument("--out", type=pathlib.Path)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--per-token", action="store_true", help="put every token's NLL into --out")
    args = ap.parse_args()

    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(
        str(args.model.parent), gguf_file=args.model.name, dtype=torch.float32,
        attn_implementation="eager").eval()
    with open(args.items, encoding="utf-8") as f:
        items = [json.loads(line) for line in f if line.strip()][:args.limit]
    results, total, scored = [], 0.0, 0
    for item in items:
        ids = torch.tensor(item["token_ids"])
        start = item["start"]
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0, start - 1:-1].double()
        nll = torch.nn.functional.cross_entropy(logits, ids[start:], reduction="none").tolist()
        result = {"id": item["id"], "tokens": len(ids), "start": start, "scored": len(nll),
                  "nll_sum": sum(nll), "nll_mean": sum(nll) / len(nll)}
        if args.per_token:
            result["nll"] = [round(x, 6) for x in nll]
        results.append(result)
        total += sum(nll)
        scored += len(nll)
        print(f"{item['id']}: {result['nll_mean']:.6f} over {len(nll)} tokens", flush=True)
    mean_of_items = sum(r["nll_mean"] for r in results) / len(results)
    print(f"mean per token {total / scored:.6f} ({scored} tokens), mean of items {mean_of_items:.6f}")
    if args.out:
        args.out.write_text(json.dumps({
            "model": args.model.name, "transformers": transformers.__version__,
            "torch": torch.__version__, "dtype": "float32", "mean_nll": total / scored,
            "mean_of_items": mean_of_items, "scored": scored, "items": results,
        }, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
