"""Compile the CUDA sources: a fatbin by nvcc for the GPUs we serve, or a CPU library by a C++ compiler for tests.

``python -m vedette.kernels.compile`` writes ``kernels/fatbin/<name>.fatbin``. The GPU needs no compiler: PyCUDA loads the fatbin.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = ("ring_attention", "letterbox")
#: Turing to Blackwell, with Jetson Orin (87) and Hopper (90)
TARGETS = ("75", "80", "86", "87", "89", "90", "100", "110", "120")


def compile_fatbin(name: str, out: Path, targets: Sequence[str] = TARGETS) -> Path:
    """One file with machine code for every target; RuntimeError carries nvcc's words."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise RuntimeError("compile: needs nvcc, found none on PATH; install the CUDA toolkit")
    codes = [f"-gencode=arch=compute_{t},code=sm_{t}" for t in targets]
    _run([nvcc, "-fatbin", "-O3", "-Xptxas", "-v", *codes, "-o", str(out), str(FOLDER / f"{name}.cu")])
    return out


def compile_cpu(name: str, out: Path) -> Path:
    """The same source as a shared library; RuntimeError when there is no C++ compiler or it refuses."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("compile: needs g++ or clang++, found neither on PATH")
    flags = ["-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Werror"]
    _run([compiler, *flags, "-o", str(out), str(FOLDER / f"{name}.cu")])
    return out


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"compile: {Path(command[0]).name} refused, got {done.stderr.strip()[-2000:]}")
    return done.stderr


def main() -> int:
    """Build every fatbin beside the sources."""
    (FOLDER / "fatbin").mkdir(exist_ok=True)
    for name in SOURCES:
        path = compile_fatbin(name, FOLDER / "fatbin" / f"{name}.fatbin")
        print(f"{path} {path.stat().st_size} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
