"""The training step of bench/step in PyTorch, on processors: the same models, batches, objective and optimiser.

A batch is 2,000 rows in crops of one length, so nothing is padded. A mode is a precision and what is added to it:
  fp32        everything in fp32
  medium      fp32, and products as precise as PyTorch calls "medium": bf16 inside, where the processor has it
  autocast    parameters in fp32, products in bf16 by autocast
  bf16        parameters and activations in bf16; the optimiser keeps fp32 masters and moments, as sotto does
  bf16-only   parameters, activations and moments in bf16, no masters: cheaper, and small updates are lost
  +compile    the model, with its loss, through torch.compile
  +math       attention in plain products and a softmax, not scaled_dot_product_attention
For each line read it computes a step and prints a line of JSON, after one that says what it is. Without torch:
SKIPPED, and exit code 77.
"""

import argparse
import json
import math
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    print(f"SKIPPED: {error}", file=sys.stderr)
    sys.exit(77)

from hubert import CLASSES, FEATURES, GROUPS, PROJECTION, cluster_loss, masked_rows, step_flops  # noqa: E402

MODELS = {  # width, depth, heads, feed-forward, taps of the position, pre-norm: the specs of bench/step.cpp
    "12x384x1536": (384, 12, 6, 1536, (128,), False),
    "3x768x3072": (768, 3, 12, 3072, (128,), False),
    "12x384x768": (384, 12, 8, 768, (128,), False),
    "3x640x2048": (640, 3, 8, 2048, (128,), False),
    "12x256x1024": (256, 12, 4, 1024, (128,), False),
    "12x192x768": (192, 12, 3, 768, (128,), False),
    "4x192x768": (192, 4, 3, 768, (31, 65), True),
}
PRECISIONS = ("fp32", "medium", "autocast", "bf16", "bf16-only")


class Convolution(nn.Module):
    """Grouped, with weight norm over taps and GELU; of an even number of taps the last output is dropped."""

    def __init__(self, width, taps):
        super().__init__()
        self.direction = nn.Parameter(torch.randn(width, width // GROUPS, taps) * (4 / (taps * width)) ** 0.5)
        self.magnitude = nn.Parameter(self.direction.detach().norm(dim=(0, 1)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.taps = taps

    def forward(self, x):  # [batch, width, length]
        weight = self.direction * (self.magnitude / self.direction.norm(dim=(0, 1)))
        y = F.conv1d(x, weight, self.bias, padding=self.taps // 2, groups=GROUPS)[:, :, : x.shape[2]]
        return F.gelu(y)


class Block(nn.Module):
    def __init__(self, width, heads, feed_forward, pre_norm, dropout, plain_attention):
        super().__init__()
        self.heads, self.pre_norm, self.dropout, self.plain_attention = heads, pre_norm, dropout, plain_attention
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.intermediate = nn.Linear(width, feed_forward)
        self.output = nn.Linear(feed_forward, width)
        self.attention_norm = nn.LayerNorm(width)
        self.final_norm = nn.LayerNorm(width)
        for linear in (self.query_key_value, self.projection, self.intermediate, self.output):
            nn.init.normal_(linear.weight, 0, 0.02)
            nn.init.zeros_(linear.bias)

    def attention(self, x):
        batch, length, width = x.shape
        q, k, v = self.query_key_value(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.plain_attention:
            scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(2, 3)
            attended = scores.softmax(-1).to(v.dtype) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        return self.projection(attended.transpose(1, 2).reshape(batch, length, width))

    def feed_forward(self, x):
        return self.output(F.gelu(self.intermediate(x)))

    def dropped(self, x):
        return F.dropout(x, self.dropout) if self.dropout > 0 else x

    def forward(self, x):
        if self.pre_norm:
            x = x + self.dropped(self.attention(self.attention_norm(x)))
            return x + self.dropped(self.feed_forward(self.final_norm(x)))
        x = self.attention_norm(x + self.dropped(self.attention(x)))
        return self.final_norm(x + self.dropped(self.feed_forward(x)))


class Hubert(nn.Module):
    """From features to the loss: cross-entropy of the clusters of masked frames, by cosines over a temperature."""

    def __init__(self, width, depth, heads, feed_forward, taps, pre_norm, dropout, plain_attention):
        super().__init__()
        self.pre_norm, self.dropout = pre_norm, dropout
        self.feature_projection = nn.Linear(FEATURES, width)
        self.mask = nn.Parameter(torch.rand(width))
        self.position = nn.Sequential(*(Convolution(width, n) for n in taps))
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            Block(width, heads, feed_forward, pre_norm, dropout, plain_attention) for _ in range(depth)
        )
        self.final_projection = nn.Linear(width, PROJECTION)
        self.embedding = nn.Parameter(torch.rand(CLASSES, PROJECTION))

    def dropped(self, x):
        return F.dropout(x, self.dropout) if self.dropout > 0 else x

    def forward(self, features, hidden, masked, targets):
        """features [batch, length, 160]; hidden [batch, length, 1], bool; masked: its rows; targets: their clusters."""
        x = self.dropped(self.feature_projection(features))
        x = torch.where(hidden, self.mask.to(x.dtype), x)
        x = x + self.position(x.transpose(1, 2)).transpose(1, 2)
        if not self.pre_norm:
            x = self.norm(x)
        x = self.dropped(x)
        for block in self.blocks:
            x = block(x)
        if self.pre_norm:
            x = self.norm(x)
        projected = self.final_projection(x.flatten(0, 1).index_select(0, masked))
        return cluster_loss(projected, self.embedding, targets)


class Optimiser:
    """Clip and fused AdamW. masters: of a model in bf16, parameters are kept in fp32 too."""

    def __init__(self, model, masters):
        self.working = list(model.parameters())
        self.masters = [p.detach().float().requires_grad_() for p in self.working] if masters else self.working
        if masters:
            for p in self.masters:
                p.grad = torch.zeros_like(p)
        decayed = [p for p in self.masters if p.ndim >= 2]
        rest = [p for p in self.masters if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98), eps=1e-6, fused=True)

    @torch.no_grad()
    def step(self):
        if self.masters is not self.working:
            torch._foreach_copy_([p.grad for p in self.masters], [p.grad for p in self.working])
        nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)
        self.adamw.step()
        if self.masters is not self.working:
            torch._foreach_copy_(self.working, self.masters)
        for p in self.working:
            p.grad = None


class Step:
    def __init__(self, arguments, precision, compiled, plain_attention):
        torch.manual_seed(1)
        generator = torch.Generator().manual_seed(1)
        sequences, length = arguments.rows // arguments.frames, arguments.frames
        self.precision = precision
        dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
        width, depth, _, feed_forward, taps, _ = MODELS[arguments.model]
        model = Hubert(*MODELS[arguments.model], arguments.dropout, plain_attention).to(dtype)
        self.optimiser = Optimiser(model, masters=precision == "bf16")
        self.network = torch.compile(model, dynamic=False, fullgraph=True) if compiled else model
        hidden = masked_rows(sequences, length, generator)
        masked = hidden.flatten().nonzero().squeeze(1)
        self.inputs = (
            torch.randn(sequences, length, FEATURES, generator=generator).to(dtype),
            hidden.unsqueeze(-1),
            masked,
            torch.randint(CLASSES, (masked.numel(),), generator=generator),
        )
        self.flops = step_flops(width, depth, feed_forward, sum(taps), sequences, length, masked.numel())

    def run(self):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "autocast"):
            loss = self.network(*self.inputs)
        loss.backward()
        self.optimiser.step()
        return loss.item()


def resident_mib():
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="12x384x1536", choices=MODELS)
    parser.add_argument("--frames", type=int, default=250, help="of a crop")
    parser.add_argument("--rows", type=int, default=2000, help="of a batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0)
    parser.add_argument("--mode", default="fp32", help=f"{'|'.join(PRECISIONS)}[+compile][+math]")
    parser.add_argument("--warm-up", type=int, default=3)
    arguments = parser.parse_args()
    precision, *added = arguments.mode.split("+")
    if precision not in PRECISIONS or not set(added) <= {"compile", "math"}:
        parser.error(f"no mode is called {arguments.mode}")

    torch.set_num_threads(arguments.threads)
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)
    if precision == "medium":
        torch.set_float32_matmul_precision("medium")
    step = Step(arguments, precision, "compile" in added, "math" in added)
    for _ in range(arguments.warm_up):
        step.run()
    described = {
        "program": f"torch {torch.__version__}",
        "model": arguments.model,
        "frames": arguments.frames,
        "threads": arguments.threads,
        "mode": arguments.mode,
        "dropout": arguments.dropout,
        "gflop": round(step.flops * 1e-9, 4),
    }
    print(json.dumps(described), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = step.run()
        seconds = time.perf_counter() - start
        sample = {
            "seconds": round(seconds, 6),
            "gflops": round(step.flops / seconds * 1e-9, 3),
            "loss": round(loss, 5),
            "resident_mib": round(resident_mib(), 1),
        }
        print(json.dumps(described | sample), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
