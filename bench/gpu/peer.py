"""The training step of bench_gpu_step in PyTorch: the same models, batches, objective and optimiser.

Sequences have one length, so nothing is padded; parameters are fp32, and autocast computes in bf16. GELU is the tanh
form, as in Cuda<bf16>. Prints the fields that step --json prints. Without torch or a GPU: SKIPPED, and exit code 77.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    print(f"SKIPPED: {error}", file=sys.stderr)
    sys.exit(77)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))
from hubert import CLASSES, FEATURES, GROUPS, PROJECTION, cluster_loss, masked_rows, step_flops  # noqa: E402

TAPS = 128
MODELS = {  # width, depth, heads, feed-forward
    "12x384x1536": (384, 12, 8, 1536),
    "3x768x3072": (768, 3, 12, 3072),
    "12x384x768": (384, 12, 8, 768),
    "12x256x1024": (256, 12, 4, 1024),
    "tiny": (32, 2, 2, 64),
}
MODES = ("eager", "reduce-overhead", "max-autotune")


class Position(nn.Module):
    """Grouped convolution with weight norm over taps; of an even number of taps the last output is dropped."""

    def __init__(self, width):
        super().__init__()
        self.direction = nn.Parameter(torch.randn(width, width // GROUPS, TAPS) * (4 / (TAPS * width)) ** 0.5)
        self.magnitude = nn.Parameter(self.direction.detach().norm(dim=(0, 1)))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        weight = self.direction * (self.magnitude / self.direction.norm(dim=(0, 1)))
        y = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=TAPS // 2, groups=GROUPS)[:, :, : x.shape[1]]
        return x + F.gelu(y, approximate="tanh").transpose(1, 2)


class Block(nn.Module):
    """Post-norm: a norm after each residual sum."""

    def __init__(self, width, heads, feed_forward):
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.intermediate = nn.Linear(width, feed_forward)
        self.output = nn.Linear(feed_forward, width)
        self.attention_norm = nn.LayerNorm(width)
        self.final_norm = nn.LayerNorm(width)
        for linear in (self.query_key_value, self.projection, self.intermediate, self.output):
            nn.init.normal_(linear.weight, 0, 0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.query_key_value(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = self.attention_norm(x + self.projection(attended))
        hidden = F.gelu(self.intermediate(x), approximate="tanh")
        return self.final_norm(x + self.output(hidden))


class Hubert(nn.Module):
    """From features to the loss: cross-entropy of the clusters of masked frames, by cosines over a temperature."""

    def __init__(self, width, depth, heads, feed_forward):
        super().__init__()
        self.feature_projection = nn.Linear(FEATURES, width)
        self.mask = nn.Parameter(torch.rand(width))
        self.position = Position(width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads, feed_forward) for _ in range(depth))
        self.final_projection = nn.Linear(width, PROJECTION)
        self.embedding = nn.Parameter(torch.rand(CLASSES, PROJECTION))

    def forward(self, features, hidden, masked, targets):
        """features [batch, length, 160]; hidden [batch, length, 1], bool; masked: its rows; targets: their clusters."""
        x = self.feature_projection(features)
        x = torch.where(hidden, self.mask.to(x.dtype), x)
        x = self.norm(self.position(x))
        for block in self.blocks:
            x = block(x)
        projected = self.final_projection(x.flatten(0, 1).index_select(0, masked))
        return cluster_loss(projected, self.embedding, targets)


def optimiser_of(model, fused):
    parameters = list(model.named_parameters())
    decayed = [p for _, p in parameters if p.ndim >= 2]
    rest = [p for _, p in parameters if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98), eps=1e-6, fused=fused)


class Timer:
    """Time between marks: by events on a GPU, so that the host may run ahead; by the clock on a CPU."""

    def __init__(self, device):
        self.on_gpu = device.type == "cuda"
        self.marks = []

    def mark(self):
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def milliseconds(self):
        pairs = list(zip(self.marks, self.marks[1:]))
        if not self.on_gpu:
            return [1e3 * (end - begin) for begin, end in pairs]
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) for begin, end in pairs]


def measure(model_name, sequences, length, mode, device, warm_up=10, measured=25):
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    on_gpu = device.type == "cuda"
    width, depth, heads, feed_forward = MODELS[model_name]
    model = Hubert(width, depth, heads, feed_forward).to(device)
    optimiser = optimiser_of(model, fused=on_gpu)
    network = model
    if mode != "eager":
        torch.compiler.reset()  # else a second model counts as a recompilation of the first
        network = torch.compile(model, mode=mode, dynamic=False)

    hidden = masked_rows(sequences, length, generator)
    masked = hidden.flatten().nonzero().squeeze(1)
    host = [
        torch.randn(sequences, length, FEATURES, generator=generator),
        hidden.unsqueeze(-1),
        masked,
        torch.randint(CLASSES, (masked.numel(),), generator=generator),
    ]
    if on_gpu:
        host = [tensor.pin_memory() for tensor in host]
    inputs = [tensor.to(device) for tensor in host]

    def step():
        for there, here in zip(inputs, host):
            there.copy_(here, non_blocking=True)
        if mode != "eager":
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = network(*inputs)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.detach()

    for _ in range(warm_up):
        loss = step()
    if on_gpu:
        torch.cuda.synchronize()
    timer = Timer(device)
    timer.mark()
    for _ in range(measured):
        loss = step()
        timer.mark()
    milliseconds = statistics.median(timer.milliseconds())
    rate = sequences * length / milliseconds * 1e3
    return {
        "program": f"torch {torch.__version__}",
        "mode": mode,
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "model": model_name,
        "sequences": sequences,
        "length": length,
        "arithmetic": "bf16",
        "step_ms": round(milliseconds, 4),
        "frames_per_second": round(rate),
        "times_real_time": round(rate / 50),
        "tflops": round(step_flops(width, depth, feed_forward, TAPS, sequences, length, masked.numel()) / milliseconds * 1e-9, 3),
        "bound_fraction": None,
        "launches": None,
        "loss": round(loss.item(), 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="12x384x1536,3x768x3072,12x384x768,12x256x1024", help=", ".join(MODELS))
    parser.add_argument("--batches", default="2048x250,2048x780,16384x250,16384x780", help="rows x length of sequences")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="3 steps, to check this program: --cpu --models tiny --batches 60x30 --modes eager",
    )
    arguments = parser.parse_args()

    if arguments.cpu:
        device, steps = torch.device("cpu"), {"warm_up": 1, "measured": 3}
    elif torch.cuda.is_available():
        device, steps = torch.device("cuda"), {}
        torch.set_float32_matmul_precision("high")  # what autocast leaves in fp32 may use tensor cores
        torch.backends.cudnn.benchmark = True
    else:
        print("SKIPPED: torch finds no GPU; --cpu checks this program without one", file=sys.stderr)
        return 77
    # What takes longest to compile comes last: whoever stops this early has the rest.
    for mode in arguments.modes.split(","):
        for model in arguments.models.split(","):
            for batch in arguments.batches.split(","):
                rows, length = map(int, batch.split("x"))
                print(json.dumps(measure(model, rows // length, length, mode, device, **steps)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
