"""The peer of `sotto pretrain`: a complete PyTorch program with the same model, data, labels, budget and schedule.

    pretrain.py train --data DATA --budget 1e12 --out RUN     decode, label, train; RUN/model.pt
    pretrain.py probe --data WORDS.tsv --features RUN         words by ridge regression, as `sotto probe` does it

It is log-mel HuBERT, sotto's preset `tiny`. Audio is decoded once and kept; a worker process makes the batches; they
are padded, bucketed or packed; a budget counts the model FLOPs of real frames, as include/sotto/budget/cost.hpp does.
It is eager: compiled, its row-wise parts are no faster, and as a whole every new length compiles it again.
Needs torch, numpy and soundfile; without them: SKIPPED, and exit code 77.
"""

import argparse
import concurrent.futures
import csv
import ctypes
import json
import math
import os
import pathlib
import sys
import time

try:
    import numpy
    import soundfile
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.nn.attention import SDPBackend, sdpa_kernel
except (ImportError, OSError) as error:
    print(f"SKIPPED: {error}", file=sys.stderr)
    sys.exit(77)

WIDTH, DEPTH, HEADS, FEED_FORWARD = 192, 4, 3, 768
GROUPS, TAPS = 16, (31, 65)
GAP = max(TAPS) // 2  # zeros between packed sequences: no convolution then sees a neighbour
BANDS, STACK, FEATURES = 80, 2, 160
CLASSES, PROJECTION, TEMPERATURE = 100, 256, 0.1
MASK_PROBABILITY, MASK_LENGTH, MASK_MINIMUM = 0.8, 10, 2
RATE, FRAME, HOP, TRANSFORM = 16000, 400, 160, 512
CROP = (int(15.6 * RATE) - FRAME) // HOP // STACK + 1
LEARNING_RATE, WARMUP, CLIP = 1e-3, 0.08, 1.0
MFCC_BANDS, CEPSTRA, MFCC = 23, 13, 39
FIT_FRAMES, SAMPLE, MINI_BATCH, RESTARTS, ITERATIONS, PATIENCE, PASSES = 2_000_000, 30_000, 10_000, 5, 100, 10, 3
POOL = 50  # batches whose utterances are sorted together


def keep_freed_memory():
    """Else glibc gives large tensors back to the system, and each step faults their pages in again."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_max = -1, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


# ---------------------------------------------------------------------------------------------------------------- audio


class Corpus:
    """A manifest's utterances in memory: 16-bit samples at 16 kHz."""

    def __init__(self, path, threads):
        path = pathlib.Path(path)
        manifest = path / "manifest.tsv" if path.is_dir() else path
        with open(manifest, newline="", encoding="utf-8") as file:
            self.rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        self.audio = [None] * len(self.rows)
        of_file = {}
        for i, row in enumerate(self.rows):
            of_file.setdefault(manifest.parent / row["path"], []).append(i)

        def decode(item):
            file, utterances = item
            samples, rate = soundfile.read(file, dtype="int16")
            if rate != RATE or samples.ndim != 1:
                raise SystemExit(f"{file}: {RATE} Hz mono is needed")
            samples = torch.from_numpy(samples)
            for i in utterances:
                first = int(self.rows[i].get("start") or 0)
                # a copy, or a file of which one utterance is wanted would stay whole
                self.audio[i] = samples[first : first + int(self.rows[i]["samples"])].clone()

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, of_file.items()))

    def __len__(self):
        return len(self.rows)

    def frames(self, i):
        """Of 10 ms."""
        return max(0, (len(self.audio[i]) - FRAME) // HOP + 1)

    def windows(self, i, first, count):
        """[count, 400] samples in [-1, 1], from 10 ms frame `first` on."""
        begin = first * HOP
        samples = self.audio[i][begin : begin + FRAME + HOP * (count - 1)]
        return samples.float().mul_(1 / 32768).unfold(0, FRAME, HOP)


# ------------------------------------------------------------------------------------------------------------ front-end


def mel_weights(bands):
    """[256, bands]: Kaldi's triangles from 20 Hz to Nyquist, whose bin is left out."""

    def mel(hertz):
        return 1127 * numpy.log(1 + hertz / 700)

    bins = numpy.arange(TRANSFORM // 2) * RATE / TRANSFORM
    edges = numpy.linspace(mel(20), mel(RATE / 2), bands + 2)
    at = mel(bins)[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(numpy.maximum(0, numpy.minimum(rising, falling))).float()


class Filterbank:
    """Log-mel energies as Kaldi computes them, without dither."""

    def __init__(self, bands, scale):
        cosine = torch.cos(2 * math.pi * torch.arange(FRAME, dtype=torch.float64) / (FRAME - 1))
        self.window = (scale * (0.5 - 0.5 * cosine) ** 0.85).float()
        self.mel = mel_weights(bands)
        self.flops = 2 * int((self.mel > 0).sum()) + 5 * TRANSFORM * 9 // 2  # a frame

    def __call__(self, windows):
        x = windows - windows.mean(1, keepdim=True)
        x = (x - 0.97 * F.pad(x[:, None], (1, 0), mode="replicate")[:, 0, :-1]) * self.window
        spectrum = torch.view_as_real(torch.fft.rfft(x, TRANSFORM))[:, :-1]
        power = spectrum[..., 0].square() + spectrum[..., 1].square()
        return (power @ self.mel).clamp_(min=2**-23).log_()


class LogMel:
    """Two successive frames side by side; each band normalised over the utterance."""

    def __init__(self):
        self.filterbank = Filterbank(BANDS, 32768)
        self.flops = STACK * self.filterbank.flops  # a frame of 20 ms

    def __call__(self, corpus, crops):
        """crops: (utterance, first frame, frames); [all frames, 160]."""
        windows = [corpus.windows(i, first * STACK, frames * STACK) for i, first, frames in crops]
        energies = self.filterbank(torch.cat(windows)).split([len(w) for w in windows])
        normalised = []
        for e in energies:
            deviation, mean = torch.std_mean(e, 0, correction=0)
            normalised.append((e - mean) * torch.where(deviation > 1e-5, 1 / deviation, 0))
        return torch.cat(normalised).view(-1, FEATURES)


class MelCepstra:
    """HuBERT's: 13 liftered cepstra, their deltas and the deltas' deltas, every 10 ms."""

    def __init__(self):
        self.filterbank = Filterbank(MFCC_BANDS, 1)
        c, band = torch.arange(CEPSTRA, dtype=torch.float64), torch.arange(MFCC_BANDS, dtype=torch.float64)
        transform = (2 / MFCC_BANDS) ** 0.5 * torch.cos(math.pi / MFCC_BANDS * (band[:, None] + 0.5) * c)
        transform[:, 0] = (1 / MFCC_BANDS) ** 0.5
        self.transform = (transform * (1 + 11 * torch.sin(math.pi * c / 22))).float()
        self.flops = self.filterbank.flops + 2 * MFCC_BANDS * CEPSTRA + 8 * CEPSTRA

    def __call__(self, corpus, utterances):
        """[frames of all of them, 39]."""
        windows = [corpus.windows(i, 0, corpus.frames(i)) for i in utterances]
        lengths = torch.tensor([len(w) for w in windows])
        x = self.filterbank(torch.cat(windows)) @ self.transform
        last = lengths.cumsum(0).repeat_interleave(lengths) - 1
        first = last + 1 - lengths.repeat_interleave(lengths)
        at = torch.arange(len(x))

        def deltas(x):
            def shifted(by):
                return x[(at + by).clamp(first, last)]

            return 0.1 * (shifted(1) - shifted(-1)) + 0.2 * (shifted(2) - shifted(-2))

        d = deltas(x)
        return torch.cat([x, d, deltas(d)], 1)


# --------------------------------------------------------------------------------------------------------------- labels


class Kmeans:
    """sotto's fit: greedy k-means++ on a sample, mini-batches, the best of some restarts, then passes over all."""

    def __init__(self, frames, generator):
        self.flops = 0
        sample = frames[torch.randperm(len(frames), generator=generator)[:SAMPLE]]
        least = math.inf
        for _ in range(RESTARTS):
            centroids = self.mini_batches(frames, self.plus_plus(sample, generator), generator)
            inertia = self.nearest(sample, centroids)[1].sum().item()
            if inertia < least:
                least, self.centroids = inertia, centroids
        before = math.inf
        for _ in range(PASSES):
            sums, counts, inertia = torch.zeros(CLASSES, MFCC), torch.zeros(CLASSES), 0
            for part in frames.split(65536):
                labels, distances = self.nearest(part, self.centroids)
                sums.index_add_(0, labels, part)
                counts += torch.bincount(labels, minlength=CLASSES)
                inertia += distances.sum().item()
            if inertia > (1 - 1e-3) * before:
                break
            before = inertia
            self.centroids = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), self.centroids)

    def nearest(self, frames, centroids):
        self.flops += 2 * len(frames) * MFCC * CLASSES
        partial = torch.addmm(centroids.square().sum(1), frames, centroids.T, alpha=-2)
        least, labels = partial.min(1)
        return labels, (least + frames.square().sum(1)).clamp_(min=0)

    def plus_plus(self, sample, generator):
        trials = 2 + int(math.log(CLASSES))
        squares = sample.square().sum(1)

        def distances(chosen):
            self.flops += 2 * len(sample) * MFCC * len(chosen)
            return torch.addmm(squares, chosen, sample.T, alpha=-2).add_(chosen.square().sum(1, keepdim=True)).clamp_(0)

        centroids = sample[torch.randint(len(sample), (1,), generator=generator)]
        least = distances(centroids)[0]
        for _ in range(CLASSES - 1):
            candidates = sample[torch.multinomial(least, trials, replacement=True, generator=generator)]
            remaining = torch.minimum(least, distances(candidates))
            best = remaining.sum(1).argmin()
            least = remaining[best]
            centroids = torch.cat([centroids, candidates[best : best + 1]])
        return centroids

    def mini_batches(self, frames, centroids, generator):
        weight = torch.zeros(CLASSES)
        share, running, least, idle = 2 / (PATIENCE + 1), None, math.inf, 0
        for _ in range(ITERATIONS):
            if idle == PATIENCE:
                break
            batch = frames[torch.randint(len(frames), (MINI_BATCH,), generator=generator)]
            labels, distances = self.nearest(batch, centroids)
            inertia = distances.sum().item()
            sums = centroids * weight[:, None]
            sums.index_add_(0, labels, batch)
            weight += torch.bincount(labels, minlength=CLASSES)
            centroids = torch.where(weight[:, None] > 0, sums / weight[:, None].clamp(min=1), centroids)
            running = inertia if running is None else running + share * (inertia - running)
            idle = 0 if running < least else idle + 1
            least = min(least, running)
        return centroids


def labels_of(corpus, train, generator):
    """The cluster of every second 10 ms frame of every utterance, and what learning them cost."""
    mfcc = MelCepstra()

    def chunks(utterances):
        chunk, frames = [], 0
        for i in utterances:
            if corpus.frames(i) == 0:
                continue
            chunk.append(i)
            frames += corpus.frames(i)
            if frames > 20_000:
                yield chunk
                chunk, frames = [], 0
        if chunk:
            yield chunk

    chosen, frames = [], 0
    for j in torch.randperm(len(train), generator=generator).tolist():
        if frames >= FIT_FRAMES:
            break
        chosen.append(train[j])
        frames += corpus.frames(train[j])
    fitted = torch.cat([mfcc(corpus, chunk) for chunk in chunks(chosen)])
    flops = len(fitted) * mfcc.flops
    kmeans = Kmeans(fitted, generator)
    labels = [None] * len(corpus)
    for chunk in chunks(range(len(corpus))):
        x = mfcc(corpus, chunk)
        flops += len(x) * mfcc.flops
        for i, of_frames in zip(chunk, kmeans.nearest(x, kmeans.centroids)[0].split([corpus.frames(i) for i in chunk])):
            labels[i] = of_frames[::2].short()
    return labels, flops + kmeans.flops


# -------------------------------------------------------------------------------------------------------------- batches


class Padded:
    """Sequences of one length each, the longest's."""

    def __init__(self, lengths):
        self.count, self.length = len(lengths), max(lengths)
        keep = torch.arange(self.length) < torch.tensor(lengths)[:, None]
        self.rows = self.count * self.length
        self.real = keep.flatten().nonzero().squeeze(1)  # where the frames of a batch stand
        whole = len(self.real) == self.rows
        self.keep = None if whole else keep.unsqueeze(1).float()
        self.seen = None if whole else keep[:, None, None]

    def spread(self, x):
        return x.new_zeros(self.rows, x.shape[1]).index_copy_(0, self.real, x)

    def attention(self, query_key_value):
        q, k, v = query_key_value.view(self.count, self.length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self.seen)
        return attended.transpose(1, 2).reshape(self.rows, WIDTH)

    def convolve(self, x, weight, bias):
        y = x.view(self.count, self.length, WIDTH).transpose(1, 2)
        if self.keep is not None:
            y = y * self.keep
        y = F.conv1d(y, weight, bias, padding=weight.shape[2] // 2, groups=GROUPS)
        return y.transpose(1, 2).reshape(self.rows, WIDTH)


class Packed:
    """Sequences one after the other, without padding but between them where they are convolved."""

    def __init__(self, lengths):
        self.rows = sum(lengths)
        self.real = torch.arange(self.rows)
        sequence = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        self.spaced = self.real + GAP * sequence
        self.spaced_rows = self.rows + GAP * (len(lengths) - 1)
        self.runs = []  # neighbours of one length: (how many, length)
        for length in lengths:
            if self.runs and self.runs[-1][1] == length:
                self.runs[-1] = (self.runs[-1][0] + 1, length)
            else:
                self.runs.append((1, length))

    def spread(self, x):
        return x

    def attention(self, query_key_value):
        attended = []
        for (count, length), part in zip(self.runs, query_key_value.split([n * length for n, length in self.runs])):
            q, k, v = part.view(count, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            attended.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, WIDTH))
        return torch.cat(attended)

    def convolve(self, x, weight, bias):
        spaced = x.new_zeros(self.spaced_rows, WIDTH).index_copy(0, self.spaced, x)
        y = F.conv1d(spaced.T.unsqueeze(0), weight, bias, padding=weight.shape[2] // 2, groups=GROUPS)
        return y[0].T.index_select(0, self.spaced)


def masked_frames(frames, generator):
    """HuBERT's spans, as fairseq draws them: distinct starts, which may overlap."""
    uniform = torch.rand((), generator=generator).item()
    spans = max(MASK_MINIMUM, int(MASK_PROBABILITY * frames / MASK_LENGTH + uniform))
    length = min(MASK_LENGTH, frames - 1)
    if frames - length <= spans:
        length = frames - spans - 1
    if length < 1:
        length, spans = 1, frames - 1
    starts = torch.randperm(frames - length, generator=generator)[:spans]
    hidden = torch.zeros(frames, dtype=torch.bool)
    hidden[(starts[:, None] + torch.arange(length)).flatten()] = True
    return hidden


class Batches(torch.utils.data.IterableDataset):
    """Endless. Utterances in the order of an epoch, until the next would exceed the frames of a batch; bucketed: those
    of some batches sorted by length, and the batches shuffled."""

    def __init__(self, corpus, labels, utterances, frames, batching, seed):
        self.corpus, self.labels, self.utterances = corpus, labels, utterances
        self.frames, self.batching, self.seed = frames, batching, seed
        self.log_mel = LogMel()

    def crops(self, generator):
        while True:
            for j in torch.randperm(len(self.utterances), generator=generator).tolist():
                i = self.utterances[j]
                whole = self.corpus.frames(i) // STACK
                frames = min(whole, CROP, self.frames)
                yield i, int(torch.randint(whole - frames + 1, (), generator=generator)), frames

    def plans(self, generator):
        def cut(crops):
            plan = []
            for crop in crops:
                if sum(c[2] for c in plan) + crop[2] > self.frames:
                    yield plan
                    plan = []
                plan.append(crop)

        crops = self.crops(generator)
        if self.batching != "bucketed":
            yield from cut(crops)
        while True:
            pool, frames = [], 0
            while frames < POOL * self.frames:
                pool.append(next(crops))
                frames += pool[-1][2]
            plans = list(cut(sorted(pool, key=lambda c: c[2])))
            for j in torch.randperm(len(plans), generator=generator).tolist():
                yield plans[j]

    def make(self, plan, generator):
        plan = sorted(plan, key=lambda c: -c[2])
        layout = (Packed if self.batching == "packed" else Padded)([c[2] for c in plan])
        hidden = torch.cat([masked_frames(c[2], generator) for c in plan]).nonzero().squeeze(1)
        labels = []
        for i, first, frames in plan:
            at = torch.arange(first, first + frames).clamp(max=len(self.labels[i]) - 1)
            labels.append(self.labels[i][at])
        return {
            "layout": layout,
            "features": layout.spread(self.log_mel(self.corpus, plan)),
            "masked": layout.real[hidden],
            "targets": torch.cat(labels)[hidden].long(),
            "frames": sum(c[2] for c in plan),
            "flops": train_flops([c[2] for c in plan], len(hidden), self.log_mel),
        }

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        for plan in self.plans(generator):
            yield self.make(plan, generator)


def train_flops(lengths, masked, log_mel):
    """sotto's Cost<Tiny>::train and head: 2 per multiply-add on real frames; nothing trains below the projection."""
    position = sum(WIDTH * WIDTH // GROUPS * taps for taps in TAPS)
    row = 2 * WIDTH * FEATURES + 3 * position + DEPTH * 3 * (4 * WIDTH * WIDTH + 2 * WIDTH * FEED_FORWARD)
    pairs = sum(length * length for length in lengths) * DEPTH * 3 * 2 * WIDTH
    head = 3 * masked * (WIDTH * PROJECTION + PROJECTION * CLASSES)
    return sum(lengths) * (log_mel.flops + 2 * row) + 2 * (pairs + head)


# ---------------------------------------------------------------------------------------------------------------- model


class Convolution(nn.Module):
    """Weight norm over taps."""

    def __init__(self, taps):
        super().__init__()
        self.direction = nn.Parameter(torch.randn(WIDTH, WIDTH // GROUPS, taps) * (4 / (taps * WIDTH)) ** 0.5)
        self.magnitude = nn.Parameter(self.direction.detach().norm(dim=(0, 1)))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x, layout):
        weight = self.direction * (self.magnitude / self.direction.norm(dim=(0, 1)))
        return F.gelu(layout.convolve(x, weight, self.bias))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.final_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.projection = nn.Linear(WIDTH, WIDTH)
        self.intermediate = nn.Linear(WIDTH, FEED_FORWARD)
        self.output = nn.Linear(FEED_FORWARD, WIDTH)
        for linear in (self.query_key_value, self.projection, self.intermediate, self.output):
            nn.init.normal_(linear.weight, 0, 0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x, layout):
        x = x + self.projection(layout.attention(self.query_key_value(self.attention_norm(x))))
        return x + self.output(F.gelu(self.intermediate(self.final_norm(x))))


class Hubert(nn.Module):
    """Rows of frames, however a layout holds them, to the loss of the masked ones."""

    def __init__(self):
        super().__init__()
        self.feature_projection = nn.Linear(FEATURES, WIDTH)
        self.mask = nn.Parameter(torch.rand(WIDTH))
        self.position = nn.ModuleList(Convolution(taps) for taps in TAPS)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.final_projection = nn.Linear(WIDTH, PROJECTION)
        self.embedding = nn.Parameter(torch.rand(CLASSES, PROJECTION))
        for linear in (self.feature_projection, self.final_projection):
            nn.init.uniform_(linear.weight, -(linear.in_features**-0.5), linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def hidden_states(self, features, layout, masked=None):
        x = self.feature_projection(features)
        if masked is not None:
            x = x.index_put((masked,), self.mask.to(x.dtype))
        position = x
        for convolution in self.position:
            position = convolution(position, layout)
        states = [x + position]
        for block in self.blocks:
            states.append(block(states[-1], layout))
        states[-1] = self.norm(states[-1])
        return states

    def forward(self, batch):
        """Loss, and the part of the masked frames that are right."""
        encoded = self.hidden_states(batch["features"], batch["layout"], batch["masked"])[-1]
        projected = self.final_projection(encoded.index_select(0, batch["masked"]))
        scores = F.linear(F.normalize(projected, dim=-1), F.normalize(self.embedding, dim=-1)).float() / TEMPERATURE
        right = (scores.detach().argmax(1) == batch["targets"]).float().mean()
        return F.cross_entropy(scores, batch["targets"]), right


# ------------------------------------------------------------------------------------------------------------- training


def learning_rate(fraction):
    return LEARNING_RATE * max(0.0, min(fraction / WARMUP, (1 - fraction) / (1 - WARMUP), 1.0))


def optimiser_of(model):
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-6, fused=True)


def divide(corpus, generator):
    """By speaker: those of the split val and 2 % of the others are held out."""
    speakers = sorted({row["speaker"] for row in corpus.rows})
    out = {s for s in speakers if torch.rand((), generator=generator).item() < 0.02}
    train, held_out = [], []
    for i, row in enumerate(corpus.rows):
        if corpus.frames(i) // STACK < 2:
            continue
        (held_out if row.get("split") == "val" or row["speaker"] in out else train).append(i)
    return train, held_out


def held_out_batches(batches, utterances, generator):
    plan, plans, total = [], [], 0
    for j in torch.randperm(len(utterances), generator=generator).tolist():
        frames = min(batches.corpus.frames(utterances[j]) // STACK, CROP)
        if total + frames > 4000:
            break
        if sum(c[2] for c in plan) + frames > batches.frames:
            plans.append(plan)
            plan = []
        plan.append((utterances[j], 0, frames))
        total += frames
    return [batches.make(plan, generator) for plan in plans + [plan]]


def arithmetic(precision):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


def evaluate(model, held_out, precision):
    total = torch.zeros(2)
    with torch.no_grad(), arithmetic(precision):
        for batch in held_out:
            total += len(batch["targets"]) * torch.stack(model(batch))
    return (total / sum(len(batch["targets"]) for batch in held_out)).tolist()


def train(arguments):
    began = time.perf_counter()
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    corpus = Corpus(arguments.data, arguments.threads)
    decoded = time.perf_counter()
    utterances, others = divide(corpus, generator)
    labels, label_flops = labels_of(corpus, utterances, generator)
    if label_flops >= arguments.budget:
        raise SystemExit(f"the labels alone cost {label_flops} FLOPs")
    labelled = time.perf_counter()

    batches = Batches(corpus, labels, utterances, arguments.batch_frames, arguments.batching, arguments.seed)
    held_out = held_out_batches(batches, others, generator)
    model = Hubert()
    optimiser = optimiser_of(model)
    parameters = list(model.parameters())
    # batch_size None: a batch is made whole; the worker is a process, so that it does not wait for the interpreter
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
    spent, next_evaluation, frames, rows, steps = label_flops, 0.0, 0, 0, 0
    for batch in loader:
        if spent + batch["flops"] > arguments.budget:
            break
        rate = learning_rate((spent + batch["flops"] / 2) / arguments.budget)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with arithmetic(arguments.precision):
            loss, right = model(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        spent += batch["flops"]
        frames += batch["frames"]
        rows += batch["layout"].rows
        steps += 1
        if arguments.held_out_every > 0 and spent / arguments.budget >= next_evaluation:
            held_out_loss, held_out_right = evaluate(model, held_out, arguments.precision)
            next_evaluation = (spent / arguments.budget // arguments.held_out_every + 1) * arguments.held_out_every
            line = {"event": "step", "step": steps, "flops": spent}
            line |= {"loss": loss.item(), "masked_accuracy": right.item()}
            line |= {"heldout_loss": held_out_loss, "heldout_masked_accuracy": held_out_right}
            print(json.dumps(line | {"seconds": time.perf_counter() - decoded}), flush=True)
    if steps == 0:
        raise SystemExit("the budget pays for no step")
    held_out_loss, held_out_right = evaluate(model, held_out, arguments.precision)
    ended = time.perf_counter()
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict()}, out / "model.pt")
    end = {
        "event": "end",
        "program": f"torch {torch.__version__}",
        "parameters": sum(p.numel() for p in parameters),
        "step": steps,
        "flops": spent,
        "label_flops": label_flops,
        "loss": loss.item(),
        "heldout_loss": held_out_loss,
        "masked_accuracy": right.item(),
        "heldout_masked_accuracy": held_out_right,
        "audio_seconds": frames / 50,
        "rows_per_frame": rows / frames,
        "decode_seconds": decoded - began,
        "label_seconds": labelled - decoded,
        "train_seconds": ended - labelled,
    }
    print(json.dumps(end), flush=True)


# ---------------------------------------------------------------------------------------------------------------- words


def resampled(x):
    """20 frames, interpolated from the first to the last."""
    position = torch.arange(20, dtype=torch.float64) * (len(x) - 1) / 19
    below = position.long().clamp(max=len(x) - 1)
    above = (below + 1).clamp(max=len(x) - 1)
    return (x[below] + (position - below).float()[:, None] * (x[above] - x[below])).flatten()


def mean_and_deviation(x):
    deviation, mean = torch.std_mean(x, 0, correction=0)
    return torch.cat([mean, deviation])


POOLINGS = {"20 resampled frames": resampled, "mean and deviation over time": mean_and_deviation}
RIDGES = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1, 3, 10, 30)


def classified(x, train, targets, ridges):
    """The class of every row of x, for each ridge: least squares onto one-hot targets of the first `train` rows, inputs
    standardised, the ridge a multiple of the Gram matrix's mean eigenvalue."""
    deviation, mean = torch.std_mean(x[:train].double(), 0, correction=0)
    scale = torch.where(deviation > 1e-6 * mean.abs().clamp(min=1e-6), 1 / deviation, 0)
    x = (x.double() - mean) * scale
    known = x[:train]
    one_hot = F.one_hot(targets[:train]).double()
    prior = one_hot.mean(0)
    dual = x.shape[1] > train
    gram = known @ known.T if dual else known.T @ known
    size = gram.diagonal().mean()
    for ridge in ridges:
        factor = torch.linalg.cholesky(gram + ridge * size * torch.eye(len(gram), dtype=torch.float64))
        right = one_hot - prior if dual else known.T @ (one_hot - prior)
        solution = torch.cholesky_solve(right, factor)
        weights = known.T @ solution if dual else solution
        yield ridge, (x @ weights + prior).argmax(1)


def words(layers, targets, counts):
    """layers: of each, pooled features [utterances, n]: those of training speakers, of validation speakers, of test
    speakers; counts says how many. Ridge and layer are those that do best on validation speakers."""
    train, validation, _ = counts
    scores = []
    for number, x in enumerate(layers):
        best = None
        for ridge, predicted in classified(x, train, targets, RIDGES):
            right = (predicted == targets).double()
            validated = right[train : train + validation].mean().item()
            if best is None or (validated, ridge) >= (best["validation_accuracy"], best["ridge"]):
                best = {"layer": number, "ridge": ridge, "validation_accuracy": validated}
                best["accuracy"] = right[train + validation :].mean().item()
        scores.append(best)
    return max(scores, key=lambda s: s["validation_accuracy"]) | {"layers": scores}


def probe(arguments):
    corpus = Corpus(arguments.data, arguments.threads)
    classes = sorted({row["label"] for row in corpus.rows})
    order = {"train": 0, "val": 1, "test": 2}
    items = sorted(range(len(corpus)), key=lambda i: order[corpus.rows[i]["split"]])
    counts = [sum(row["split"] == split for row in corpus.rows) for split in order]
    targets = torch.tensor([classes.index(corpus.rows[i]["label"]) for i in items])
    log_mel = LogMel()
    model = None
    if arguments.features != "logmel":
        model = Hubert()
        model.load_state_dict(torch.load(pathlib.Path(arguments.features) / "model.pt")["model"])
    pooled = {name: [] for name in POOLINGS}
    with torch.no_grad():
        for i in items:
            frames = corpus.frames(i) // STACK
            features = log_mel(corpus, [(i, 0, frames)])
            states = [features] if model is None else model.hidden_states(features, Packed([frames]))
            for name, pool in POOLINGS.items():
                pooled[name].append([pool(state) for state in states])
    result = {"task": "words", "features": arguments.features}
    layers = {name: [torch.stack(layer) for layer in zip(*vectors)] for name, vectors in pooled.items()}
    if arguments.save:
        arrays = {f"{name}, layer {k}": x.numpy() for name, of in layers.items() for k, x in enumerate(of)}
        numpy.savez(arguments.save, targets=targets.numpy(), counts=counts, **arrays)
    for prefix, name in zip(("", "mean_std_"), POOLINGS):
        result |= {prefix + key: value for key, value in words(layers[name], targets, counts).items()}
    print(json.dumps(result), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("--budget", type=float, required=True, help="model FLOPs, labels included")
    training.add_argument("--out", required=True)
    training.add_argument("--batch-frames", type=int, default=1500, help="real frames of 20 ms a step")
    training.add_argument("--batching", choices=("padded", "bucketed", "packed"), default="bucketed")
    training.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
    training.add_argument("--attention", choices=("math", "fused"), default="math")
    training.add_argument("--held-out-every", type=float, default=0.02, help="part of the budget; 0: at the end")
    training.add_argument("--seed", type=int, default=1)
    probing = commands.add_parser("probe")
    probing.add_argument("--features", required=True, help="the directory of a run, or logmel")
    probing.add_argument("--save", help="pooled features, an .npz")
    for command in (training, probing):
        command.add_argument("--data", required=True, help="a manifest, or a folder with a manifest.tsv")
        command.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    if arguments.command == "probe":
        probe(arguments)
    else:
        with sdpa_kernel(SDPBackend.MATH if arguments.attention == "math" else SDPBackend.FLASH_ATTENTION):
            train(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
