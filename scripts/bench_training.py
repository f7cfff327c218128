#!/usr/bin/env python3
"""Training speed beside torch: one decoder layer, forward + backward + AdamW, on the CPU.

    python3 scripts/bench_training.py [--rounds 5] [--steps 10] [--threads 2]

The model is the same on both sides: token embedding [512, 512], one layer of the Qwen3 architecture
(hidden 512, MLP 1536, 8 heads of 64, norms of queries and keys, rotary embedding, causal attention),
final norm, output projection tied to the embedding, mean cross-entropy of all 4 x 512 next tokens.
Torch uses its fused attention and its fused AdamW, with f32 and with bf16 autocast (weights in f32).
Ours is the fast path that `pretrain` runs: products in bf16 with f32 sums, all else in f32.

Rounds alternate between the three, so that a busy machine slows down all of them alike. Printed are
the median time of a step, the processor time of a step (all threads; what others on the machine do
matters less to it), and the ratios of the medians. Needs torch (requirements.txt) and cargo.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

V, H, I, HEADS, D, SEQ, BATCH = 512, 512, 1536, 8, 64, 512, 4
TEST = "net::decoder::speed::speed_of_one_layer"


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        normal = lambda o, i: torch.nn.Parameter(torch.randn(o, i) / i ** 0.5)
        ones = lambda n: torch.nn.Parameter(torch.ones(n))
        self.embed = torch.nn.Parameter(torch.randn(V, H) * 0.05)
        self.qkv, self.o = normal(3 * HEADS * D, H), normal(H, HEADS * D)
        self.gate_up, self.down = normal(2 * I, H), normal(H, I)
        self.norms = torch.nn.ParameterList([ones(H), ones(H), ones(H), ones(D), ones(D)])
        angles = torch.outer(torch.arange(SEQ).float(), 1e4 ** (-torch.arange(0, D, 2) / D))
        self.register_buffer("cos", torch.cat([angles, angles], 1).cos())
        self.register_buffer("sin", torch.cat([angles, angles], 1).sin())

    def rotate(self, x):
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat([-b, a], -1) * self.sin

    def forward(self, tokens, targets):
        norm = lambda x, w: F.rms_norm(x, w.shape, w.to(x.dtype), 1e-6)
        before, after, last, q_norm, k_norm = self.norms
        x = F.embedding(tokens, self.embed)
        qkv = F.linear(norm(x, before), self.qkv).view(BATCH, SEQ, 3, HEADS, D).transpose(1, 3)
        q, k, v = qkv.unbind(2)
        q, k = self.rotate(norm(q, q_norm)), self.rotate(norm(k, k_norm))
        a = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        x = x + F.linear(a.transpose(1, 2).reshape(BATCH, SEQ, HEADS * D), self.o)
        gate, up = F.linear(norm(x, after), self.gate_up).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, self.down)
        logits = F.linear(norm(x, last), self.embed)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Torch:
    def __init__(self, bf16):
        self.bf16 = bf16
        self.model = Layer()
        self.adam = torch.optim.AdamW(
            self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        i = torch.arange(SEQ + 1)
        texts = torch.stack([(i * i * 31 + i * 7 + t) % V for t in range(BATCH)])
        self.tokens, self.targets = texts[:, :-1].contiguous(), texts[:, 1:].contiguous()

    def step(self):
        self.adam.zero_grad(set_to_none=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.model(self.tokens, self.targets)
        loss.backward()
        self.adam.step()
        return loss

    def round(self, steps):
        for _ in range(2):
            self.step()
        wall, cpu = [], time.process_time()
        for _ in range(steps):
            start = time.perf_counter()
            self.step()
            wall.append(1e3 * (time.perf_counter() - start))
        return {"wall_ms": wall, "cpu_ms": 1e3 * (time.process_time() - cpu) / steps}


class Ours:
    def __init__(self, threads):
        build = ["cargo", "test", "--release", "-p", "specexit-train", "--lib", "--no-run"]
        text = subprocess.run(build, check=True, capture_output=True, text=True).stderr
        self.binary = re.search(r"Executable.*\((.*)\)", text).group(1)
        self.threads = threads
        root = subprocess.run(["cargo", "locate-project", "--workspace", "--message-format", "plain"],
                              check=True, capture_output=True, text=True).stdout
        self.binary = os.path.join(os.path.dirname(root.strip()), self.binary)

    def round(self, steps):
        env = dict(os.environ, BENCH_STEPS=str(steps), BENCH_THREADS=str(self.threads))
        command = [self.binary, "--exact", TEST, "--ignored", "--nocapture"]
        text = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
        return json.loads(re.search(r"BENCH (\{.*\})", text).group(1))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--steps", type=int, default=10, help="of each side in a round")
    ap.add_argument("--threads", type=int, default=2)
    args = ap.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    sides = {"specexit bf16": Ours(args.threads), "torch bf16": Torch(True), "torch f32": Torch(False)}
    wall, cpu = {name: [] for name in sides}, {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            found = side.round(args.steps)
            wall[name] += found["wall_ms"]
            cpu[name].append(found["cpu_ms"])
    print(f"torch {torch.__version__}, {args.threads} threads, "
          f"{args.rounds} rounds of {args.steps} steps of {BATCH} x {SEQ} tokens")
    ours = [statistics.median(x["specexit bf16"]) for x in (wall, cpu)]
    for name in sides:
        w, c = statistics.median(wall[name]), statistics.median(cpu[name])
        print(f"{name:14}  {w:7.1f} ms a step (fastest {min(wall[name]):.1f}), {c:7.1f} ms of CPU; "
              f"specexit takes {ours[0] / w:.2f} of its time, {ours[1] / c:.2f} of its CPU")


if __name__ == "__main__":
    main()
