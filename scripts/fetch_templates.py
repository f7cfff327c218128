#!/usr/bin/env python3
"""Fetch the chat templates of real models for the tests that compare renderings.

    python3 scripts/fetch_templates.py [--out target/dev-templates] [--models target/dev-models]

The templates are other people's text and are not kept in this repository; it keeps only hashes of
what they render to (crates/specexit-model/tests/golden/templates/real.json). They come from two
places: the llama.cpp that the llama-cpp-python source package carries, whose models/templates/
holds them word for word, and the metadata of the GGUF files of fetch_dev_models.py (skipped where
those are missing). index.json in the output folder lists what is there. make_goldens.py
--only real then writes the full renderings beside them.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

# Not the newest: later ones carry edited or reformatted versions of the DeepSeek and QwQ templates.
SOURCE, VERSION = "llama-cpp-python", "0.3.16"
INSIDE = "vendor/llama.cpp/models/templates/"

QWEN = {"eos_token": "<|im_end|>"}
LLAMA = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
DEEPSEEK = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
SMOLLM = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}

# model, our file name, where it comes from, sha256 of the template, special tokens it may name
TEMPLATES = [
    ("Qwen3-0.6B", "qwen3.jinja", INSIDE + "Qwen-Qwen3-0.6B.jinja",
     "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5", QWEN),
    ("QwQ-32B", "qwq.jinja", INSIDE + "Qwen-QwQ-32B.jinja",
     "16488ad69d85833e5f66c50174f39834b688343337e9337f018deaa21b354117", QWEN),
    ("Qwen2.5-7B-Instruct", "qwen2.5.jinja", INSIDE + "Qwen-Qwen2.5-7B-Instruct.jinja",
     "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f", QWEN),
    ("Llama-3.1-8B-Instruct", "llama-3.1.jinja", INSIDE + "meta-llama-Llama-3.1-8B-Instruct.jinja",
     "e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65", LLAMA),
    # R1-Distill-Qwen's is the same, byte for byte.
    ("DeepSeek-R1-Distill-Llama-8B", "deepseek-r1-distill.jinja",
     INSIDE + "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja",
     "56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f", DEEPSEEK),
    ("SmolLM2-135M-Instruct", "smollm2.jinja", "smollm2-135m-q4_1.gguf",
     "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788", SMOLLM),
    ("Qwen2.5-Coder-1.5B-Instruct", "qwen2.5-coder.jinja", "qwen2.5-coder-1.5b-q4_k_m.gguf",
     "d5495a1e5db0611132a97e46a65dbb64a642a499421228b9c8b93229097fa9a4", QWEN),
]


def download_source(folder):
    # pip asks a source package for its metadata, which runs the package's own build description;
    # nothing is compiled or installed.
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-binary", ":all:", "--dest", str(folder), f"{SOURCE}=={VERSION}"],
        check=True,
    )
    return next(folder.glob("*.tar.gz"))


def from_source(archive):
    wanted = {path for _, _, path, _, _ in TEMPLATES if path.startswith(INSIDE)}
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            path = member.name.partition("/")[2]
            if path in wanted:
                found[path] = tar.extractfile(member).read()
    return found


def from_gguf(path):
    import gguf

    field = gguf.GGUFReader(str(path)).fields["tokenizer.chat_template"]
    return field.contents().encode("utf-8")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/dev-templates"))
    ap.add_argument("--models", type=pathlib.Path, default=pathlib.Path("target/dev-models"))
    ap.add_argument("--source", type=pathlib.Path, default=None,
                    help=f"{SOURCE}-{VERSION}.tar.gz if it is here already")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory() as tmp:
        archive = args.source or download_source(pathlib.Path(tmp))
        texts = from_source(archive)

    index = []
    for name, file, origin, sha256, specials in TEMPLATES:
        if origin.endswith(".gguf"):
            model = args.models / origin
            if not model.is_file():
                print(f"{name}: left out, {model} is not there")
                continue
            text = from_gguf(model)
        else:
            text = texts[origin]
        got = hashlib.sha256(text).hexdigest()
        if got != sha256:
            sys.exit(f"{name}: sha256 {got}, expected {sha256}")
        (args.out / file).write_bytes(text)
        index.append({"name": name, "file": file, "sha256": sha256, "special_tokens": specials})
        print(f"{name}: {file}, {len(text)} bytes")
    (args.out / "index.json").write_text(
        json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
