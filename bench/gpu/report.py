"""One markdown file from the lines that bench_gpu_step and peer.py print with --json.

usage: report.py TITLE PARAMETERS FILE…    PARAMETERS: a line about the machine
Lines that measure the same thing are rounds: what is reported is their median, and how far apart they are.
"""

import collections
import json
import statistics
import sys

ARITHMETIC = {"bf16": 0, "tf32": 1, "fp32": 2}


def read(files):
    for name in files:
        with open(name, encoding="utf-8") as file:
            for line in file:
                if line.startswith("{"):
                    yield json.loads(line)


def grouped(lines, *fields):
    groups = collections.OrderedDict()
    for line in lines:
        groups.setdefault(tuple(line[field] for field in fields), []).append(line)
    return groups


def middle(lines, field):
    values = [line[field] for line in lines if line[field] is not None]
    return statistics.median(values) if values else None


def table(header, rows):
    yield "| " + " | ".join(header) + " |"
    yield "| " + " | ".join(["---"] * len(header)) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def steps(lines):
    rows = []
    for (model, sequences, length, arithmetic), rounds in grouped(
        lines, "model", "sequences", "length", "arithmetic"
    ).items():
        times = [line["step_ms"] for line in rounds]
        fraction = middle(rounds, "bound_fraction")
        rows.append(
            [
                model,
                f"{sequences} x {length}",
                arithmetic,
                f"{middle(rounds, 'step_ms'):.3f}",
                f"{100 * (max(times) / min(times) - 1):.1f} %",
                f"{middle(rounds, 'frames_per_second'):,.0f}",
                f"{middle(rounds, 'times_real_time'):,.0f}",
                f"{middle(rounds, 'tflops'):.1f}",
                "" if fraction is None else f"{fraction:.2f}",
                str(rounds[0]["launches"]),
            ]
        )
    return table(
        ["model", "batch", "arithmetic", "ms", "between rounds", "frames/s", "x real time", "TFLOP/s", "of the bound",
         "launches"],
        rows,
    )


def against(ours, theirs):
    modes = list(dict.fromkeys(line["mode"] for line in theirs))
    mine = grouped([line for line in ours if line["arithmetic"] == "bf16"], "model", "sequences", "length")
    rows = []
    for key, lines in grouped(theirs, "model", "sequences", "length").items():
        if key not in mine:
            continue
        step = middle(mine[key], "step_ms")
        by_mode = {mode: middle([line for line in lines if line["mode"] == mode], "step_ms") for mode in modes}
        best = min(time for time in by_mode.values() if time is not None)
        rows.append(
            [key[0], f"{key[1]} x {key[2]}", f"{step:.3f}"]
            + ["" if by_mode[mode] is None else f"{by_mode[mode]:.3f}" for mode in modes]
            + [f"{best / step:.2f}"]
        )
    return table(["model", "batch", "sotto", *modes, "best / sotto"], rows)


def operations(lines):
    for (model, sequences, length), group in grouped(lines, "model", "sequences", "length").items():
        whole = group[0]["step_ms"]
        timed = [line for line in group if line["mode"] == "operation"]
        bounds = [line for line in group if line["mode"] == "bound"]
        total = sum(line["ms"] for line in timed)
        yield f"### {model}, {sequences} x {length}, bf16"
        yield ""
        yield f"Replayed: {whole:.3f} ms a step. One by one, an event after each: {total:.3f} ms."
        yield ""
        yield from table(
            ["operation", "calls", "ms", "share", "TFLOP/s"],
            [
                [line["operation"], str(line["calls"]), f"{line['ms']:.4f}", f"{100 * line['ms'] / total:.1f} %",
                 f"{line['tflops']:.0f}" if line["tflops"] > 0 else ""]
                for line in timed
            ],
        )
        if bounds:
            yield f"No step takes less than {sum(line['ms'] for line in bounds):.3f} ms by the device's data sheet:"
            yield ""
            yield from table(
                ["operation", "launches", "ms at least"],
                [[line["operation"], str(line["calls"]), f"{line['ms']:.4f}"] for line in bounds],
            )


def main():
    title, parameters, *files = sys.argv[1:]
    lines = list(read(files))
    ours = [line for line in lines if line["program"] == "sotto" and line["mode"] == "replayed"]
    theirs = [line for line in lines if line["program"] != "sotto"]
    details = [line for line in lines if line["program"] == "sotto" and line["mode"] != "replayed"]
    ours.sort(key=lambda line: ARITHMETIC[line["arithmetic"]])
    print(f"# {title}\n\n{parameters}\n")
    print("## The training step\n")
    print("Features, labels and masks to the device, forward, backward, AdamW; replayed, one step ahead.\n"
          "A batch: sequences x frames of 20 ms. TFLOP/s: model FLOPs. The bound: `info --device`'s, of bf16.\n")
    print("\n".join(steps(ours)))
    if theirs:
        print(f"## Against {theirs[0]['program']}\n")
        print("ms a step, bf16, in turns with sotto; `bench/gpu/peer.py`. Empty: it did not fit into the time.\n")
        print("\n".join(against(ours, theirs)))
    if details:
        print("## Operation by operation\n")
        print("\n".join(operations(details)))


if __name__ == "__main__":
    main()
