#!/usr/bin/env python3
"""The training step of sotto against PyTorch's on one processor: bench/step and bench/peers/step.py, side by side.

    bench/compare.py                                                          every model, 1 and 2 threads: long
    bench/compare.py --models 4x192x768 --threads 1 --rounds 5 --modes fp32   two minutes

Compiles bench/step with $CXX, unless --step names one. One process a competitor; only one computes at a time. Each of
PyTorch's modes is tried first, and its best of fp32 and its best of all compete in rounds: a sample of each competitor,
between two runs of a register-only FMA loop on as many threads. A sample is dropped where the loop is below 93 % of
the best seen, or where the competitor waited for a core for over 3 % of it. Reported are medians, and medians of the
ratios within rounds. The result is a table in bench/results.
"""

import argparse
import datetime
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = ("12x384x1536", "3x768x3072", "12x384x768", "3x640x2048", "12x256x1024", "12x192x768", "4x192x768")
FP32_MODES = ("fp32", "fp32+math", "fp32+compile", "fp32+compile+math")
NARROW_MODES = tuple(
    precision + added
    for precision in ("medium", "autocast", "bf16", "bf16-only")
    for added in ("", "+math", "+compile", "+compile+math")
)
FLAGS = ("-std=c++20", "-O3", "-march=native", "-mtune=generic")
# What an expert sets against page faults: nothing is mapped anew or given back, one arena, huge pages where allowed.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
INSTRUCTIONS = (("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_bf16", "AVX-512 BF16"), ("amx_bf16", "AMX"))


class Skipped(Exception):
    pass


class Server:
    """A process that answers each line with one of JSON, after a first that says that it is warm."""

    def __init__(self, command, environment=None, greets=True):
        self.errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would fill up
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        if greets:
            self.facts = self.line()

    def line(self):
        text = self.process.stdout.readline()
        while text and not text.startswith("{"):
            text = self.process.stdout.readline()
        if text:
            return json.loads(text)
        self.process.wait()
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or [f"exit code {self.process.returncode}"])[-1]
        raise Skipped(last.removeprefix("SKIPPED: "))

    def ask(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def waited(self):
        """Seconds that its threads were ready to run and did not; 0 where the kernel does not say."""
        nanoseconds = 0
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            try:
                nanoseconds += int(task.read_text().split()[1])
            except (OSError, IndexError):
                pass
        return nanoseconds * 1e-9

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.errors.close()


class Gate(Server):
    def __init__(self, step, threads):
        super().__init__([step, "--gate", "--threads", str(threads)], greets=False)
        self.best = self.last = max(self.ask()["fma_peak"] for _ in range(10))

    def rate(self):
        self.last = self.ask()["fma_peak"]
        self.best = max(self.best, self.last)
        return self.last

    def sample(self, server, threads):
        """A sample of a competitor and the peak around it; None where somebody else was on our cores."""
        before, waited = self.rate(), server.waited()
        sample = server.ask()
        waited = server.waited() - waited
        time.sleep(0.02)  # threads of OpenMP spin a while after their work
        after = self.rate()
        if min(before, after) < 0.93 * self.best:
            say(f"    dropped: the FMA loop ran at {before:.1f} and {after:.1f} GF/s, {self.best:.1f} at best")
            return None
        if waited > 0.03 * threads * sample["seconds"]:
            say(f"    dropped: waited {waited:.3f} of {sample['seconds']:.3f} s for a core")
            return None
        return {**sample, "fma_peak": (before + after) / 2}


def sotto(options, case, precision):
    model, frames, threads, dropout = case
    command = [options.step, "--serve", "--model", model, "--frames", frames, "--threads", threads]
    return Server([str(part) for part in (*command, "--dropout", dropout, "--precision", precision)])


def torch(options, case, mode):
    model, frames, threads, dropout = case
    command = [options.python, "-W", "ignore", HERE / "peers" / "step.py", "--model", model, "--frames", frames]
    command += ["--threads", threads, "--dropout", dropout, "--mode", mode]
    return Server([str(part) for part in command], {**ALLOCATOR, "OMP_NUM_THREADS": str(threads)})


def say(text):
    print(text, file=sys.stderr, flush=True)


def trial(options, case, gate, modes, notes):
    """GF/s of each mode, the median of a few samples; disturbed ones count where there are no others."""
    rates = {}
    for mode in modes:
        try:
            with torch(options, case, mode) as server:
                samples = [(gate.sample(server, case[2]), server) for _ in range(options.trial)]
                kept = [sample for sample, _ in samples if sample] or [server.ask()]
                rates[mode] = statistics.median(sample["gflops"] for sample in kept)
                say(f"  torch {mode}: {rates[mode]:.1f} GF/s")
        except Skipped as reason:
            notes.append(f"PyTorch {mode}, {case[0]}: {reason}.")
            say(f"  torch {mode}: {reason}")
            if "torch" in str(reason) and not rates:
                break  # there is no torch at all
    return rates


def compete(options, case, gate, modes, notes):
    """Rounds of samples by competitor."""
    servers = {}
    try:
        for precision in options.precisions:
            try:
                servers["sotto " + precision] = sotto(options, case, precision)
            except Skipped as reason:
                notes.append(f"sotto {precision}: {reason}.")
        for mode in modes:
            servers["torch " + mode] = torch(options, case, mode)
        rounds, names = [], list(servers)
        for turn in range(3 * options.rounds):
            names = names[1:] + names[:1]  # nobody always comes first
            rounds.append({name: gate.sample(servers[name], case[2]) for name in names})
            if sum(all(taken.values()) for taken in rounds) >= options.rounds:
                break
        return rounds
    finally:
        for server in servers.values():
            server.__exit__()


def middle(rounds, name, field):
    values = [taken[name][field] for taken in rounds if taken.get(name)]
    return statistics.median(values) if values else None


def fraction(rounds, name):
    values = [taken[name]["gflops"] / taken[name]["fma_peak"] for taken in rounds if taken.get(name)]
    return statistics.median(values) if values else None


def ratio(rounds, ours, theirs):
    """Median of the ratios of rounds in which both were undisturbed."""
    values = [
        taken[ours]["gflops"] / taken[theirs]["gflops"]
        for taken in rounds
        if theirs and taken.get(ours) and taken.get(theirs)
    ]
    return statistics.median(values) if values else None


def shown(value, form):
    return "" if value is None else format(value, form)


def table(header, rows):
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)]


def rows_of(case, precisions, rounds, best):
    """Lines of the table: one for each precision of sotto's. best: names of PyTorch's best of fp32 and of all modes."""
    for precision in precisions:
        ours = "sotto " + precision
        theirs = best["fp32" if precision == "fp32" else "any"]
        if not middle(rounds, ours, "gflops"):
            continue
        model, frames, threads, dropout = case
        kept = sum(1 for taken in rounds if taken.get(ours) and (not theirs or taken.get(theirs)))
        rate = middle(rounds, ours, "gflops")
        yield [
            model,
            frames,
            threads,
            dropout,
            precision,
            f"{rate:.1f}",
            f"{fraction(rounds, ours):.3f}",
            f"{middle(rounds, ours, 'times_real_time'):.0f}",
            shown(middle(rounds, theirs, "gflops") if theirs else None, ".1f"),
            theirs.removeprefix("torch ") if theirs else "",
            shown(ratio(rounds, ours, theirs), ".2f"),
            f"{middle(rounds, ours, 'resident_mib'):.0f}",
            shown(middle(rounds, theirs, "resident_mib") if theirs else None, ".0f"),
            f"{kept} of {len(rounds)}",
        ]


HEADER = (
    "model,frames,threads,dropout,sotto,GF/s,of FMA peak,x real time,PyTorch GF/s,its best mode,ratio,"
    "MiB,PyTorch MiB,rounds kept"
).split(",")


def processor():
    """Its name, and which of the instructions that matter it has."""
    name, flags = "processor", ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
        if line.startswith("flags"):
            flags = line.split(":", 1)[1].split()
            break
    return name, [title for flag, title in INSTRUCTIONS if flag in flags]


def compiled(compiler, folder):
    program = Path(folder) / "step"
    include = subprocess.run(["pkg-config", "--cflags", "eigen3"], capture_output=True, text=True, check=False)
    command = [compiler, *FLAGS, "-I", HERE.parent / "include", *include.stdout.split(), HERE / "step.cpp"]
    began = time.monotonic()
    subprocess.run([*command, "-o", program, "-pthread"], check=True)
    say(f"bench/step: {time.monotonic() - began:.0f} s to compile")
    return program


def listed(text):
    return text.split(",")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=listed, default=list(MODELS), help=", ".join(MODELS))
    parser.add_argument("--frames", type=listed, default=["250"], help="of a crop: 250,500,1000")
    parser.add_argument("--threads", type=listed, default=["1", "2"])
    parser.add_argument("--dropout", type=listed, default=["0"])
    parser.add_argument("--precisions", type=listed, default=["fp32", "bf16"], help="sotto's")
    parser.add_argument("--modes", type=listed, help="PyTorch's; without: all that the processor has arithmetic for")
    parser.add_argument("--rounds", type=int, default=10, help="undisturbed ones; at most three times as many are run")
    parser.add_argument("--trial", type=int, default=3, help="samples that choose PyTorch's best modes")
    parser.add_argument("--step", help="the program bench/step; without: it is compiled")
    parser.add_argument("--python", default=sys.executable, help="one that has torch")
    parser.add_argument("--out", type=Path, help="the table's file; without: in bench/results, by date and processor")
    options = parser.parse_args()
    name, instructions = processor()
    modes = options.modes
    if modes is None:
        modes = list(FP32_MODES)
        if {"AVX-512 BF16", "AMX"} & set(instructions):
            modes += NARROW_MODES

    compiler = os.environ.get("CXX", "g++")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    notes, rows, trials = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        options.step = options.step or compiled(compiler, folder)
        for threads in options.threads:
            with Gate(options.step, threads) as gate:
                for dropout, frames, model in itertools.product(options.dropout, options.frames, options.models):
                    case = (model, frames, int(threads), dropout)
                    say(f"{model}, {frames} frames, {threads} thread(s), dropout {dropout}")
                    rates = trial(options, case, gate, modes, notes)
                    fast = sorted(rates, key=rates.get, reverse=True)
                    of_fp32 = [mode for mode in fast if mode in FP32_MODES]
                    best = {"fp32": of_fp32[0] if of_fp32 else None, "any": fast[0] if fast else None}
                    chosen = list(dict.fromkeys(mode for mode in best.values() if mode))
                    rounds = compete(options, case, gate, chosen, notes)
                    best = {key: mode and "torch " + mode for key, mode in best.items()}
                    added = [list(map(str, row)) for row in rows_of(case, options.precisions, rounds, best)]
                    for row in added:
                        say("  " + ", ".join(f"{key}: {value}" for key, value in zip(HEADER[4:], row[4:])))
                    rows += added
                    trials.append([*map(str, case), ", ".join(f"{mode} {rates[mode]:.1f}" for mode in fast)])
                peak = gate.best
                notes.append(f"FMA peak of {threads} thread(s): {peak:.1f} GF/s.")

    today = datetime.date.today().isoformat()
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)|cpu.*|processor", "", name.lower())).strip("-")
    torch_version = subprocess.run(
        [options.python, "-W", "ignore", "-c", "import torch; print(torch.__version__)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    command = "bench/compare.py " + " ".join(sys.argv[1:])
    lines = [
        f"# The training step against PyTorch: {today}",
        "",
        f"{name} ({', '.join(instructions)}), {os.cpu_count()} cores; {version}, `{' '.join(FLAGS)}`; "
        f"PyTorch {torch_version or 'was not there'}; `{command.strip()}`.",
        "",
        "Forward + backward + clip + AdamW over 2,000 rows; GF/s of model FLOPs, medians; ratio: the median of those "
        "within rounds. fp32 stands against PyTorch's best fp32 mode, bf16 against its best of any. MiB: the most that "
        "was resident. PyTorch's allocator: "
        + " ".join(f"`{key}={value}`" for key, value in ALLOCATOR.items())
        + ".",
        "",
        *table(HEADER, rows),
        "",
        f"PyTorch's modes, GF/s (medians of {options.trial} samples):",
        "",
        *table(["model", "frames", "threads", "dropout", "modes"], trials),
        "",
        *dict.fromkeys(notes),
    ]
    out = options.out or HERE / "results" / f"{today}-step-{slug}.md"
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    say(f"wrote {out}")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
