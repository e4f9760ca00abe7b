#!/usr/bin/env python3
"""What compilers say of the stock CUDA kernels, for each architecture.

    bench/kernels_report.py [sm_80 …] [--json]           a table, or JSON
    bench/kernels_report.py [sm_80 …] --check BASELINE   exits 1 where a kernel spills, uses local
                                                         memory, or needs 15 % more registers

Needs nvcc 12 or newer, c++filt and nm; no GPU. Registers, stack, spills and static shared memory
are ptxas's. Dynamic shared memory is what the library's own launchers ask for: a host program calls
them, with the launch replaced by one that writes down its arguments. Blocks a multiprocessor and
occupancy are cuda_occupancy.h's, NVIDIA's. Instructions are counted in PTX.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_ARCHITECTURES = ["sm_80", "sm_90a", "sm_100"]
MOST_REGISTERS = 1.15  # of those of the baseline

# Compute capability: KiB of shared memory of a multiprocessor and of a block that asks, and threads
# of a multiprocessor (CUDA C++ Programming Guide, "Technical Specifications").
LIMITS = {
    "80": (164, 163, 2048),
    "86": (100, 99, 1536),
    "89": (100, 99, 1536),
    "90": (228, 227, 2048),
    "100": (228, 227, 2048),
    "120": (100, 99, 1536),
}

# As sotto_add_kernels() writes them.
KERNELS = """\
#include <sotto/cuda.cuh>
#include <sotto/attention/full.hpp>
#include <sotto/attention/relative_bias.hpp>

using namespace sotto;
using attention::Full, attention::WavLmBias;

template class sotto::Cuda<float>;
template class sotto::Cuda<bf16>;
template struct sotto::cuda::AttentionOperations<Full, 32, float>;
template struct sotto::cuda::AttentionOperations<Full, 48, float>;
template struct sotto::cuda::AttentionOperations<Full, 64, float>;
template struct sotto::cuda::AttentionOperations<Full, 128, float>;
template struct sotto::cuda::AttentionOperations<Full, 32, bf16>;
template struct sotto::cuda::AttentionOperations<Full, 48, bf16>;
template struct sotto::cuda::AttentionOperations<Full, 64, bf16>;
template struct sotto::cuda::AttentionOperations<Full, 128, bf16>;
template struct sotto::cuda::TableOperations<WavLmBias, bf16>;
template struct sotto::cuda::AttentionOperations<WavLmBias, 64, bf16>;
"""

# Prints `kernel bytes` of each launch, the kernel as its address counted from main's. Convolutions
# have 16 groups and 128 taps, as the presets' have: with 8 to 48 channels a group tensor cores
# multiply bf16, with 4 and 20 they do not.
LAUNCHES = """\
#include <cstdio>

#include <sotto/cuda.cuh>
#include <sotto/attention/full.hpp>
#include <sotto/attention/relative_bias.hpp>

int main();

// The linker puts these in the place of libcudart's.
extern "C" cudaError_t __wrap_cudaLaunchKernelExC(cudaLaunchConfig_t const* launch,
                                                  void const* kernel, void**) {
  std::printf("%td %zu\\n", static_cast<char const*>(kernel) - reinterpret_cast<char const*>(&main),
              launch->dynamicSmemBytes);
  return cudaSuccess;
}
extern "C" cudaError_t __wrap_cudaFuncSetAttribute(void const*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

using namespace sotto;

template <class Policy, int W, class T> void attend() {
  using Kernels = cuda::AttentionKernels<Policy, W, T>;
  const cuda::AttentionShape shape{nullptr, 1, 64, 1, W, 1.f};
  Kernels::forward(shape, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
  Kernels::backward(shape, 1, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                    nullptr, nullptr, nullptr, nullptr, nullptr);
}
template <class T> void convolve(int channels) {
  const ConvolutionShape shape{16 * channels, 16, 128};
  cuda::convolution<T>(shape, nullptr, 1, 64, nullptr, nullptr, nullptr, nullptr, nullptr);
  cuda::convolution_gradient<T>(shape, nullptr, 1, 64, nullptr, nullptr, nullptr, nullptr, nullptr,
                                nullptr);
}
template <class T> void all() {
  attend<attention::Full, 32, T>();
  attend<attention::Full, 48, T>();
  attend<attention::Full, 64, T>();
  attend<attention::Full, 128, T>();
  for (const int channels : {4, 8, 16, 20, 24, 32, 40, 48}) convolve<T>(channels);
}
int main() {
  all<float>();
  all<bf16>();
  attend<attention::WavLmBias, 64, bf16>();
}
"""

# Reads lines of numbers, prints the blocks of a multiprocessor of each.
OCCUPANCY = """\
#include <cuda_occupancy.h>

#include <cstdio>

int main() {
  cudaOccDeviceProp device{};
  cudaOccFuncAttributes kernel{};
  int threads, dynamic, fixed, shared, shared_of_block;
  while (std::scanf("%d %d %d %d %d %d %d %d %d", &device.computeMajor, &device.computeMinor,
                    &shared, &shared_of_block, &device.maxThreadsPerMultiprocessor, &kernel.numRegs,
                    &threads, &fixed, &dynamic) == 9) {
    device.maxThreadsPerBlock = 1024;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 << 10;
    device.sharedMemPerMultiprocessor = shared << 10;
    device.sharedMemPerBlockOptin = shared_of_block << 10;
    device.reservedSharedMemPerBlock = 1 << 10;
    device.numSms = 1;
    kernel.maxThreadsPerBlock = 1024;
    kernel.sharedSizeBytes = fixed;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = device.sharedMemPerBlockOptin;
    const cudaOccDeviceState state{};
    cudaOccResult result{};
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads,
                                                dynamic) != CUDA_OCC_SUCCESS)
      return 1;
    std::printf("%d\\n", result.activeBlocksPerMultiprocessor);
  }
}
"""

# Columns: the key in JSON, the title, and how a value is written.
COLUMNS = [
    ("registers", "registers", str),
    ("threads", "threads", str),
    ("static_shared", "static", str),
    ("dynamic_shared", "dynamic", str),
    ("stack", "stack", str),
    ("spills", "spills", str),
    ("blocks", "blocks", str),
    ("occupancy", "occupancy", lambda x: f"{100 * x:.0f} %"),
    ("loads", "loads", str),
    ("stores", "stores", str),
    ("mma", "mma", str),
    ("ldmatrix", "ldmatrix", str),
    ("cp_async", "cp.async", str),
]
UNKNOWN = "?"


def run(*command, text=""):
    done = subprocess.run([str(c) for c in command], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def short_names(symbols):
    """Without namespaces and parameters: `adamw<bf16>`."""
    names = run("c++filt", "-p", text="\n".join(symbols) + "\n").splitlines()
    shortened = {}
    for symbol, name in zip(symbols, names, strict=True):
        name = re.sub(r"\(bool\)([01])", lambda m: "true" if m[1] == "1" else "false", name)
        name = re.sub(r"\((?:\w+::)*(\w+)\)(\d+)", r"\1 \2", name)
        name = re.sub(r"(?:\w+::)+", "", name)
        shortened[symbol] = name.replace("<void>", "").replace("> >", ">>")
    if len(set(shortened.values())) != len(shortened):
        sys.exit("two kernels have one name")
    return shortened


def parse_ptxas(text):
    """Symbol: registers, stack, spills, static shared memory."""
    kernels, kernel = {}, None
    for line in text.splitlines():
        if m := re.search(r"Compiling entry function '(\w+)'", line):
            kernel = kernels[m[1]] = {}
        elif m := re.search(r"(\d+) bytes stack .*?(\d+) .*? stores, (\d+) .*? loads", line):
            # A function that is not inlined has such a line, too.
            kernel["stack"] = kernel.get("stack", 0) + int(m[1])
            kernel["spills"] = kernel.get("spills", 0) + int(m[2]) + int(m[3])
        elif m := re.search(r"Used (\d+) registers", line):
            kernel["registers"] = int(m[1])
            shared = re.search(r"(\d+) bytes smem", line)
            kernel["static_shared"] = int(shared[1]) if shared else 0
    return kernels


def parse_ptx(text):
    """Symbol: threads by __launch_bounds__, whether it has dynamic shared memory, instructions."""
    dynamic = re.findall(r"^\.extern \.shared .*?(\w+)\[\];", text, re.MULTILINE)
    kernels = {}
    entries = re.compile(r"^\.(?:visible|weak) \.entry (\w+)\(.*?^\}", re.MULTILINE | re.DOTALL)
    for m in entries.finditer(text):
        body = m[0]
        bound = re.search(r"^\.maxntid (\d+)(?:, (\d+), (\d+))?", body, re.MULTILINE)
        threads = None
        if bound:
            threads = int(bound[1]) * int(bound[2] or 1) * int(bound[3] or 1)
        counts = {"load": 0, "store": 0}
        vectors = re.findall(r"\b(ld|st)\.global[.\w]*?\.v(\d)\.[a-z](\d+)\b", body)
        for kind, number, bits in vectors:  # 256 bits are two of 128
            counts["load" if kind == "ld" else "store"] += int(number) * int(bits) // 128
        kernels[m[1]] = {
            "threads": threads,
            "dynamic": any(re.search(rf"\b{name}\b", body) for name in dynamic),
            "loads": counts["load"],
            "stores": counts["store"],
            "mma": len(re.findall(r"\bmma\.sync", body)),
            "ldmatrix": len(re.findall(r"\bldmatrix\.sync", body)),
            "cp_async": len(re.findall(r"\bcp\.async\.c[ag]\.shared", body)),
        }
    return kernels


def launches(folder, nvcc):
    """Name: the most dynamic shared memory that the launchers ask for."""
    source, program = folder / "launches.cu", folder / "launches"
    source.write_text(LAUNCHES)
    # PTX alone: the program launches nothing.
    run(*nvcc, "-arch=compute_80", "-code=compute_80", "-Xlinker",
        "--wrap=cudaLaunchKernelExC,--wrap=cudaFuncSetAttribute", source, "-o", program)
    symbols = re.findall(r"^([0-9a-f]+) [TtWw] (\w+)$", run("nm", program), re.MULTILINE)
    places = {symbol: int(place, 16) for place, symbol in symbols}
    at = {place - places["main"]: symbol for symbol, place in places.items()}
    most = {}
    for line in run(program).splitlines():
        place, size = map(int, line.split())
        most[at[place]] = max(most.get(at[place], 0), size)
    # Not by symbols: where a kernel's host function is static, its symbol is not the kernel's.
    return {name: most[symbol] for symbol, name in short_names(sorted(most)).items()}


def occupancies(folder, nvcc, kernels, architecture):
    """Adds blocks and occupancy to kernels whose threads and shared memory are known."""
    digits = re.sub(r"\D", "", architecture)
    shared, shared_of_block, threads_of_multiprocessor = LIMITS[digits]
    known = [k for k in kernels if k["threads"] is not None and k["dynamic_shared"] is not None]
    device = f"{digits[:-1]} {digits[-1]} {shared} {shared_of_block} {threads_of_multiprocessor}"
    keys = ("registers", "threads", "static_shared", "dynamic_shared")
    lines = [f"{device} {' '.join(str(k[key]) for key in keys)}\n" for k in known]
    program = folder / "occupancy"
    if not program.exists():
        source = folder / "occupancy.cpp"
        source.write_text(OCCUPANCY)
        # The host's compiler, with the toolkit's headers.
        run(*nvcc, "-cudart", "none", source, "-o", program)
    for kernel in kernels:
        kernel["blocks"] = kernel["occupancy"] = None
    for kernel, blocks in zip(known, run(program, text="".join(lines)).split(), strict=True):
        kernel["blocks"] = int(blocks)
        kernel["occupancy"] = round(int(blocks) * kernel["threads"] / threads_of_multiprocessor, 3)


def report(architectures):
    """{compiler, architectures, kernels: {name: {architecture: values}}}"""
    nvcc = ["nvcc", "-std=c++20", "-DNDEBUG", f"-I{ROOT / 'include'}"]
    version = re.search(r"release \S+ V(\S+)", run("nvcc", "--version"))[1]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = folder / "kernels.cu"
        source.write_text(KERNELS)
        print("launches", file=sys.stderr)
        asked = launches(folder, nvcc)
        for architecture in architectures:
            print(architecture, file=sys.stderr)
            ptx = folder / f"{architecture}.ptx"
            virtual = architecture.replace("sm_", "compute_")
            run(*nvcc, f"-arch={virtual}", "-ptx", source, "-o", ptx)
            cubin = folder / "kernels.cubin"
            of_ptxas = parse_ptxas(
                run("nvcc", f"-arch={architecture}", "-cubin", "-Xptxas", "-v", ptx, "-o", cubin))
            of_ptx = parse_ptx(ptx.read_text())
            if not of_ptx or of_ptx.keys() != of_ptxas.keys():
                sys.exit(f"{architecture}: PTX and ptxas do not name the same kernels")
            names = short_names(sorted(of_ptx))
            rows = {}
            for symbol, name in names.items():
                row = {**of_ptxas[symbol], **of_ptx[symbol]}
                row["dynamic_shared"] = asked.get(name) if row.pop("dynamic") else 0
                rows[name] = row
            occupancies(folder, nvcc, list(rows.values()), architecture)
            for name, row in rows.items():
                found.setdefault(name, {})[architecture] = {key: row[key] for key, _, _ in COLUMNS}
    kernels = {name: found[name] for name in sorted(found)}
    return {"compiler": f"nvcc {version}", "architectures": architectures, "kernels": kernels}


def cell(values, write):
    """One value where all architectures have the same."""
    texts = [UNKNOWN if v is None else write(v) for v in values]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def table(found):
    architectures = found["architectures"]
    lines = [
        f"{found['compiler']}; architectures: {' / '.join(architectures)}", "",
        f"| kernel | {' | '.join(title for _, title, _ in COLUMNS)} |",
        f"| --- |{' ---: |' * len(COLUMNS)}"
    ]
    for name, by_architecture in found["kernels"].items():
        cells = [
            cell([by_architecture[a][key] for a in architectures if a in by_architecture], write)
            for key, _, write in COLUMNS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def baseline_registers(path):
    """{name: {architecture: registers}} of an earlier report, a table or JSON."""
    text = Path(path).read_text()
    if text.lstrip().startswith("{"):
        return {
            name: {a: row["registers"] for a, row in rows.items()}
            for name, rows in json.loads(text)["kernels"].items()
        }
    head = re.search(r"^nvcc .*; architectures: (.*)$", text, re.MULTILINE)
    if not head:
        sys.exit(f"{path} is no report of this program")
    architectures = head[1].split(" / ")
    registers = {}
    for name, values in re.findall(r"^\| (\w[^|]*?) \| (\d[\d /]*?) \|", text, re.MULTILINE):
        each = [int(value) for value in values.split(" / ")]
        if len(each) == 1:
            each *= len(architectures)
        registers[name] = dict(zip(architectures, each, strict=True))
    return registers


def complaints(found, baseline):
    for name, rows in found["kernels"].items():
        for architecture, row in rows.items():
            spills, stack, registers = row["spills"], row["stack"], row["registers"]
            if spills > 0 or stack > 0:
                yield f"{name}, {architecture}: {spills} bytes of spills, {stack} of stack"
            before = baseline.get(name, {}).get(architecture)
            if before is not None and registers > MOST_REGISTERS * before:
                yield f"{name}, {architecture}: {registers} registers; the baseline has {before}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=DEFAULT_ARCHITECTURES, metavar="sm_80")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", metavar="BASELINE")
    arguments = parser.parse_args()
    for architecture in arguments.architectures:
        known = re.fullmatch(r"sm_(\d+)[af]?", architecture)
        if not known or known[1] not in LIMITS:
            parser.error(f"{architecture} is none of {', '.join('sm_' + a for a in LIMITS)}")
    # Before minutes of compiling: a baseline that cannot be read is an error of the command.
    baseline = baseline_registers(arguments.check) if arguments.check else {}
    found = report(arguments.architectures)
    if not arguments.check:
        print(json.dumps(found, indent=1) if arguments.json else table(found))
        return
    for name in sorted(found["kernels"].keys() - baseline.keys()):
        print(f"{name}: not in the baseline")
    worse = list(complaints(found, baseline))
    if worse:
        sys.exit("\n".join(worse))
    print(f"{len(found['kernels'])} kernels: none is worse than in {arguments.check}")


if __name__ == "__main__":
    main()
