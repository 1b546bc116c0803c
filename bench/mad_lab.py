#!/usr/bin/env python3
"""One trial of the released benchmark by its authors' own data functions, in PyTorch: what docs/reproduction.md holds our trials against.

    python3 bench/mad_lab.py MAD_LAB in-context-recall --vocab 64 --lr 1e-3

MAD_LAB is a checkout of github athms/mad-lab, of which only mad/data/instances.py is imported. The model is `(mh-attention swiglu)*2`
as its benchmark.py builds it (language_model.py, attention.py, mlp.py at 0f49a45), but flash-attn's attention is PyTorch's and the fused RMSNorm
is written out; the training is train.py's as it runs: AdamW at a constant rate, a test after every epoch, bf16 by autocast. On a GPU the
step is compiled and recorded as a CUDA graph, which changes its time and not what it computes.
"""
import argparse
import importlib.util
import math
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

SEED, BATCH, TESTS, DIM, HEADS, INNER, IGNORED = 12345, 128, 1280, 128, 16, 352, -100
BASE = {"in-context-recall": dict(V=16, L=128, n=12800), "noisy-in-context-recall": dict(V=32, L=128, n=12800),
        "memorization": dict(V=256, L=32, n=256), "selective-copying": dict(V=16, L=256, n=12800)}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5) * self.weight).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.Wqkv, self.out_proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        size = DIM // HEADS
        angle = torch.outer(torch.arange(2048.0), 10000.0 ** -(torch.arange(0, size, 2) / size))
        self.register_buffer("cos", angle.cos().to(table).float())
        self.register_buffer("sin", angle.sin().to(table).float())

    def rotated(self, x):
        a, b = x.float().chunk(2, -1)
        c, s = self.cos[:x.shape[-2]], self.sin[:x.shape[-2]]
        return torch.cat([a * c - b * s, b * c + a * s], -1).to(x.dtype)

    def forward(self, x):
        B, T, _ = x.shape
        q, k, v = self.Wqkv(x).view(B, T, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).reshape(B, T, DIM))


class SwiGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2 = nn.Linear(DIM, INNER, bias=False), nn.Linear(DIM, INNER, bias=False)
        self.w3 = nn.Linear(INNER, DIM, bias=False)

    def forward(self, x):
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class LanguageModel(nn.Module):
    def __init__(self, vocab, table):
        super().__init__()
        self.token_embeds = nn.Embedding(vocab, DIM)
        self.model = nn.ModuleList(nn.Sequential(RMSNorm(), m) for m in (Attention(table), SwiGLU(), Attention(table), SwiGLU()))
        self.unembed = nn.Sequential(RMSNorm(), nn.Linear(DIM, vocab))
        for m in self.modules():
            if isinstance(m, nn.Linear) and m.bias is not None:
                nn.init.zeros_(m.bias)
            if isinstance(m, nn.Embedding):
                nn.init.normal_(m.weight, std=0.02)

    def forward(self, ids):
        x = self.token_embeds(ids)
        for layer in self.model:
            x = x + layer(x)
        return self.unembed(x)


def make_data(instances, a):
    """Training inputs and targets, then the test's: one generator for both, as there."""
    kw = dict(vocab_size=a.vocab, seq_len=a.length, rng=np.random.default_rng(SEED), multi_query=True, noise_vocab_size=0, frac_noise=0.0)
    if a.task == "noisy-in-context-recall":
        kw.update(noise_vocab_size=16, frac_noise=0.2)
    if a.task == "memorization":
        kw.update(kv_map=instances.generate_kv_map(vocab_size=a.vocab - 1, seed=SEED))
    if a.task == "selective-copying":
        kw.update(num_tokens_to_copy=16)
    one = getattr(instances, f"generate_{a.task.replace('-', '_')}_instance")
    for n, training in ((a.examples, True), (TESTS, False)):
        pairs = [one(is_training=training, **kw) for _ in range(n)]
        for side in zip(*pairs):
            yield torch.tensor(np.array(side)).to(DEVICE)


class Step:
    """forward, backward, update of one batch; one recorded graph for each size of batch on a GPU."""
    def __init__(self, model, loss, a):
        self.gpu = DEVICE == "cuda"
        self.model, self.loss, self.graphs = model, loss, {}
        self.opt = torch.optim.AdamW(model.parameters(), lr=a.lr, weight_decay=a.decay, fused=self.gpu, capturable=self.gpu)
        self.total = torch.zeros((), device=DEVICE)

    def run(self, x, y):
        self.opt.zero_grad(set_to_none=True)
        loss = self.loss(x, y)
        loss.backward()
        self.opt.step()
        self.total += loss.detach()

    def everything(self):
        return [*self.model.parameters(), self.total, *(t for s in self.opt.state.values() for t in s.values())]

    def record(self, x, y):
        kept = [t.detach().clone() for t in self.everything()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.run(x, y)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.run(x, y)
        now = self.everything()
        with torch.no_grad():
            for i, t in enumerate(now):                      # the warm-up's steps did not happen; before the first, moments were zero
                t.copy_(kept[i]) if i < len(kept) else t.zero_()
        return graph, x, y

    def __call__(self, x, y):
        if not self.gpu:
            return self.run(x, y)
        if len(x) not in self.graphs:
            self.graphs[len(x)] = self.record(x.clone(), y.clone())
        graph, gx, gy = self.graphs[len(x)]
        gx.copy_(x), gy.copy_(y)
        graph.replay()


def batch_accuracy(p, t, vocab):
    """torchmetrics' MulticlassAccuracy: mean of recalls over the classes wanted or predicted."""
    p, t = p[t != IGNORED], t[t != IGNORED]
    hit, want, got = (torch.bincount(i, minlength=vocab).float() for i in (t[p == t], t, p))
    live = want + got > 0
    return (hit[live] / want[live].clamp(min=1)).mean().item()


@torch.no_grad()
def tested(logits_of, x, y, vocab):
    out = [(logits_of(x[i:i + BATCH]).float(), y[i:i + BATCH]) for i in range(0, len(x), BATCH)]
    return (np.mean([batch_accuracy(o.argmax(-1), t, vocab) for o, t in out]),
            np.mean([F.cross_entropy(o.view(-1, vocab), t.view(-1), ignore_index=IGNORED).item() for o, t in out]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mad_lab")
    p.add_argument("task", choices=BASE)
    for name, kind in (("vocab", int), ("length", int), ("examples", int)):
        p.add_argument(f"--{name}", type=kind)
    p.add_argument("--lr", type=float, default=5e-4)
    p.add_argument("--decay", type=float, default=0.0)
    p.add_argument("--epochs", type=int, default=200)
    p.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    a = p.parse_args()
    base = BASE[a.task]
    a.vocab, a.length, a.examples = a.vocab or base["V"], a.length or base["L"], a.examples or base["n"]
    spec = importlib.util.spec_from_file_location("instances", f"{a.mad_lab}/mad/data/instances.py")
    instances = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(instances)
    random.seed(SEED), np.random.seed(SEED), torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    bf16 = a.precision == "bf16"
    x, y, tx, ty = make_data(instances, a)
    model = LanguageModel(a.vocab, torch.bfloat16 if bf16 else torch.float32).to(DEVICE)
    fast = torch.compile(model) if DEVICE == "cuda" else model

    def logits(m, ids):
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=bf16):
            return m(ids)
    step = Step(model, lambda i, t: F.cross_entropy(logits(fast, i).float().view(-1, a.vocab), t.view(-1), ignore_index=IGNORED), a)
    best = (math.inf, 0.0)
    print(f"{a.task}, vocabulary {a.vocab}, length {a.length}, {a.examples} examples, rate {a.lr}, decay {a.decay}, {a.precision}, {DEVICE}")
    for epoch in range(1, a.epochs + 1):
        step.total.zero_()
        order = torch.randperm(len(x), device=DEVICE)
        for i in range(0, len(x), BATCH):
            step(x[order[i:i + BATCH]], y[order[i:i + BATCH]])
        accuracy, loss = tested(lambda ids: logits(model, ids), tx, ty, a.vocab)
        best = min(best, (loss, accuracy))
        print(f"epoch {epoch:3d}  train {step.total.item() / math.ceil(len(x) / BATCH):.4f}  test {loss:.4f}  accuracy {accuracy:.4f}", flush=True)
        if accuracy > 0.999:
            break
    print(f"accuracy at the epoch of lowest test loss: {best[1]:.4f}")


if __name__ == "__main__":
    main()
