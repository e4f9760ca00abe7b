"""`sotto pretrain` against a complete PyTorch program (bench/peers/pretrain.py): wall clock to a FLOP budget, and the
words it buys. Same model, data, frames a batch, schedule and cores; one after the other, the order changing each round.

    bench/pretraining.py PROGRAM DATA SOURCE OUT --budgets 1e13,4e13 --threads 1,2 --seeds 1,2,3

DATA is a folder with a manifest.tsv; words are the rows of one SOURCE of it. Peers are batching,precision,attention:
padded, bucketed or packed; fp32 or bf16 (autocast); math or fused. Writes OUT/results.jsonl and OUT/table.md, and
prints the table. It needs the cores to itself: compare processor and wall-clock seconds.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

PEER = pathlib.Path(__file__).parent / "peers" / "pretrain.py"


def run(command, threads, log):
    """Runs it on so many of our cores; its JSON lines, wall-clock and processor seconds, and largest memory in MiB."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    if len(cores) < threads:
        raise SystemExit(f"{threads} threads need as many cores, and there are {len(cores)}")
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with open(log, "w", encoding="utf-8") as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=out,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(map(str, command))}; see {log}")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    return lines, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def train_seconds(lines):
    """Of the steps and evaluations: without decoding, labels, start and save."""
    end = lines[-1]
    if "train_seconds" in end:
        return end["train_seconds"]
    label_flops = lines[0]["label_flops"]
    first = next(line for line in lines if line["event"] == "step")
    return end["seconds"] - first["seconds"] + (first["flops"] - label_flops) / first["gflops"] * 1e-9


def measure(contender, words, arguments, budget, threads, seed):
    name = f"{contender.replace(',', '-').replace(' ', '-')}-{budget}-{threads}-{seed}"
    out = arguments.out / name
    common = ["--data", arguments.data, "--threads", threads, "--seed", seed, "--out", out]
    common += ["--held-out-every", arguments.held_out_every]
    if contender.startswith("sotto "):
        train = [arguments.program, "pretrain", "--json", "--model", "tiny", "--budget", f"{budget}flop"]
        train += ["--precision", contender.split()[1]]
        train += common + ["--batch-rows", arguments.batch_frames]
        probe = [arguments.program, "probe", "--json", "--task", "words"]
    else:
        batching, precision, attention = contender.split(",")
        train = [arguments.python, PEER, "train", "--budget", budget] + common
        train += ["--batch-frames", arguments.batch_frames]
        train += ["--batching", batching, "--precision", precision, "--attention", attention]
        probe = [arguments.python, PEER, "probe"]
    lines, wall, processor, memory = run(train, threads, arguments.out / f"{name}.jsonl")
    label_flops = next(line["label_flops"] for line in lines if "label_flops" in line)
    end, training = lines[-1], train_seconds(lines)
    probe += ["--data", words, "--features", out, "--threads", threads]
    probed = run(probe, threads, arguments.out / f"{name}-words.jsonl")[0][-1]
    result = {
        "contender": contender,
        "budget": budget,
        "threads": threads,
        "seed": seed,
        "setup_seconds": wall - training,
        "train_seconds": training,
        "all_seconds": wall,
        "processor_seconds": processor,
        "gflops": (end["flops"] - label_flops) / training * 1e-9,
        "memory_mib": memory,
        "rows_per_frame": end.get("rows_per_frame", 1.0),
        "steps": end["step"],
        "heldout_loss": end["heldout_loss"],
        "words": probed["accuracy"],
        "mean_std_words": probed["mean_std_accuracy"],
    }
    with open(arguments.out / "results.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(result), file=sys.stderr, flush=True)
    return result


def processor_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def title(contender):
    return contender if contender.startswith("sotto ") else "PyTorch: " + contender.replace(",", ", ")


def table(results, arguments):
    def of(contender, budget, threads):
        key = (contender, budget, threads)
        return [r for r in results if (r["contender"], r["budget"], r["threads"]) == key]

    def middle(rows, field):
        return statistics.median(r[field] for r in rows)

    def mean(rows, field):
        return statistics.mean(r[field] for r in rows)

    lines = [
        f"{processor_name()}. tiny, {arguments.batch_frames} frames a batch, {len(arguments.seeds)} seeds: seconds, "
        "GF/s and memory are medians, words and losses means. GF/s are model FLOPs of real frames over the seconds of "
        "training, evaluations on held-out speech included; setup is the rest: start, decoding, labels, saving.",
        "",
        "| budget | threads | program | setup s | training s | all s | processor s | GF/s | rows a frame "
        "| held-out loss | words, 20 frames | words, mean and deviation | MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    cases = [(budget, threads) for budget in arguments.budgets for threads in arguments.threads]
    for budget, threads in cases:
        for contender in arguments.contenders:
            rows = of(contender, budget, threads)
            seconds = [middle(rows, f"{what}_seconds") for what in ("setup", "train", "all", "processor")]
            lines.append(
                f"| {budget} | {threads} | {title(contender)} | "
                + " | ".join(f"{s:.1f}" for s in seconds)
                + f" | {middle(rows, 'gflops'):.1f} | {middle(rows, 'rows_per_frame'):.2f} | "
                f"{mean(rows, 'heldout_loss'):.3f} | {100 * mean(rows, 'words'):.1f} % | "
                f"{100 * mean(rows, 'mean_std_words'):.1f} % | {middle(rows, 'memory_mib'):.0f} |"
            )
    mine_and_theirs = [(m, p) for m in arguments.contenders if m.startswith("sotto ") for p in arguments.peer]
    lines += ["", "| budget | threads | sotto | against | training | all in all |", "| --- | --- | --- | --- | --- | --- |"]
    for budget, threads in cases:
        for own, peer in mine_and_theirs:
            pairs = list(zip(of(peer, budget, threads), of(own, budget, threads)))
            training, whole = (
                statistics.median(theirs[field] / mine[field] for theirs, mine in pairs)
                for field in ("train_seconds", "all_seconds")
            )
            lines.append(f"| {budget} | {threads} | {own.split()[1]} | {title(peer)} | {training:.2f} x | {whole:.2f} x |")
    lines += ["", "To the same words (20 frames):", ""]
    for budget, threads in cases:
        for own, peer in mine_and_theirs:
            theirs = of(peer, budget, threads)
            enough = [
                of(own, b, threads)
                for b in arguments.budgets
                if mean(of(own, b, threads), "words") >= mean(theirs, "words")
            ]
            text = f"- {title(peer)}, {budget}, {threads} threads, {100 * mean(theirs, 'words'):.1f} %: "
            if enough:
                ours = min(enough, key=lambda rows: middle(rows, "all_seconds"))
                ratio = middle(theirs, "all_seconds") / middle(ours, "all_seconds")
                text += f"{own} has {100 * mean(ours, 'words'):.1f} % after {ours[0]['budget']}, {ratio:.2f} x as soon"
            else:
                text += f"{own} has fewer at each of these budgets"
            lines.append(text)
    return "\n".join(lines) + "\n"


def main():
    def listed(kind):
        return lambda text: [kind(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("source")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--budgets", type=listed(str), default=["4e13"])
    parser.add_argument("--threads", type=listed(int), default=[len(os.sched_getaffinity(0))])
    parser.add_argument("--seeds", type=listed(int), default=[1])
    parser.add_argument("--precisions", type=listed(str), default=["fp32", "bf16"], help="sotto's")
    parser.add_argument("--peer", action="append", help="may be repeated; bucketed,fp32,math")
    parser.add_argument("--batch-frames", type=int, default=1500)
    parser.add_argument("--held-out-every", type=float, default=0.02)
    parser.add_argument("--python", default=sys.executable, help="one that has torch, numpy and soundfile")
    arguments = parser.parse_args()
    arguments.peer = arguments.peer or ["bucketed,fp32,math"]
    arguments.contenders = [f"sotto {precision}" for precision in arguments.precisions] + arguments.peer
    arguments.out.mkdir(parents=True, exist_ok=True)
    if any(arguments.out.iterdir()):
        raise SystemExit(f"{arguments.out} is not empty; choose another")
    arguments.out = arguments.out.resolve()  # manifests and runs are named by it

    words = arguments.out / "words.tsv"
    with open(arguments.data / "manifest.tsv", encoding="utf-8") as file:
        header, *rows = [line.rstrip("\n").split("\t") for line in file]
    path, source = header.index("path"), header.index("source")
    with open(words, "w", encoding="utf-8") as file:
        for row in [header] + [row for row in rows if row[source] == arguments.source]:
            if row is not header:
                row[path] = str(arguments.data.resolve() / row[path])
            file.write("\t".join(row) + "\n")

    results = []
    for round_number, seed in enumerate(arguments.seeds):
        for budget in arguments.budgets:
            for threads in arguments.threads:
                for contender in arguments.contenders[:: -1 if round_number % 2 else 1]:
                    results.append(measure(contender, words, arguments, budget, threads, seed))
    text = table(results, arguments)
    (arguments.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
