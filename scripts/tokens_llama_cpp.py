#!/usr/bin/env python3
"""Token ids of texts by llama.cpp's own tokeniser, one JSON line per text.

    python3 scripts/tokens_llama_cpp.py MODEL.gguf TEXTS.jsonl > ids.jsonl

Each line of TEXTS.jsonl is a JSON string. Special tokens written in a text are recognised; no start
token is added. Needs the package llama-cpp-python (requirements.txt).
"""

import json
import sys

import llama_cpp


def main():
    model_path, texts_path = sys.argv[1:]
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(model_path.encode(), params)
    if not model:
        sys.exit(f"cannot load {model_path}")
    vocab = llama_cpp.llama_model_get_vocab(model)
    with open(texts_path, encoding="utf-8") as texts:
        for line in texts:
            raw = json.loads(line).encode("utf-8")
            room = len(raw) + 8
            buffer = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(vocab, raw, len(raw), buffer, room, False, True)
            if count < 0:
                sys.exit(f"tokenising failed: {line[:60]}")
            print(json.dumps(buffer[:count]))


if __name__ == "__main__":
    main()
