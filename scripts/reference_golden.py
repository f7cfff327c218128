#!/usr/bin/env python3
"""What transformers makes of the reference reasoner: prompt ids, logits, greedy text.

    python3 scripts/reference_golden.py

Writes crates/specexit-model/tests/golden/reference.json from assets/reasoner. The model runs in
float32 on its bf16 weights.
"""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUESTIONS = [
    "Mia has 12 pens. She buys 9 more. Then the number doubles. How many pens does Mia have now?",
    "Solve for x: 3x + 5 = 26.",
    "What does this program return?\n 1: a = 4\n 2: b = 7\n 3: a = a + b\n 4: b = b + 3\n 5: return a",
    "We know this: Tom is taller than Eva. Ben is shorter than Eva. Who is the tallest? Options: Eva (A), Tom (B), Ben (C).",
    "Größe: 12.5 %\tétude…",
]
TOKENS = 48


def main():
    folder = ROOT / "assets" / "reasoner"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    items = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        closed = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
            output = model.generate(
                torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False, use_cache=True
            )[0, len(ids):]
        items.append({
            "question": question,
            "prompt": text,
            "prompt_without_thinking": closed,
            "ids": ids,
            "logits": [round(x, 5) for x in logits.tolist()],
            "greedy": output.tolist(),
            "decoded": tokenizer.decode(output, skip_special_tokens=True),
        })
    target = ROOT / "crates/specexit-model/tests/golden/reference.json"
    target.write_text(json.dumps(items, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
