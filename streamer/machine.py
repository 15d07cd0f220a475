"""What this machine has: facts for ``vedette doctor``. Nothing here raises; what cannot be found out says why.

Libraries that can take the process down with them (a broken cv2, a mismatched driver) are asked in a child process.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Facts = dict[str, Any]

#: A library that takes longer than this to import is broken, seconds.
IMPORT_S = 60.0

_CV2 = """
import cv2, json
has = cv2.videoio_registry.hasBackend
print(json.dumps({"version": cv2.__version__, "ffmpeg": has(cv2.CAP_FFMPEG), "gstreamer": has(cv2.CAP_GSTREAMER)}))
"""
_ORT = """
import onnxruntime, json
print(json.dumps({"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}))
"""
_ZMQ = """
import zmq, json
print(json.dumps({"version": zmq.zmq_version(), "pyzmq": zmq.__version__, "curve": bool(zmq.has("curve"))}))
"""
# the CLI reaches the engines by name only: the runtime's layers stay apart
_ENGINE = """
import hashlib, importlib, json
load = importlib.import_module("vedette.engines.load")
backend, why = load.choose_backend("auto")
path = load.resolve("vedette-nano")
temporal = importlib.import_module("vedette.engines.temporal_load")
print(json.dumps({"backend": backend, "why": why, "temporal": temporal.backend_here(), "model": str(path),
                  "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
"""
#: distribution names of what is optional
OPTIONAL = ("tensorrt", "tensorrt_rtx", "pycuda", "cuda-python", "openvino", "torch", "onnx", "paho-mqtt")


def machine_facts() -> Facts:
    """Everything, by topic; a topic that failed is {"error": why}."""
    topics: dict[str, Callable[[], Facts]] = {
        "system": _system,
        "memory": _memory,
        "limits": _limits,
        "shared_memory": _shared_memory,
        "opencv": lambda: ask(_CV2),
        "onnxruntime": lambda: ask(_ORT),
        "zmq": lambda: ask(_ZMQ),
        "gpu": _gpu,
        "engine": lambda: ask(_ENGINE),
        "optional": _optional,
    }
    return {name: _guarded(topic) for name, topic in topics.items()}


def _guarded(topic: Callable[[], Facts]) -> Facts:
    try:
        return topic()
    except Exception as error:  # noqa: BLE001 - a doctor that dies of the disease helps nobody; the reason is shown
        return {"error": f"{type(error).__name__}: {error}"}


def ask(code: str, timeout_s: float = IMPORT_S) -> Facts:
    """What a fresh interpreter prints as JSON when it runs ``code``; {"error": why} when it does not."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not answer within {timeout_s:g} s"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended with status {done.returncode}"]
        return {"error": last[0]}
    facts: Facts = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def _system() -> Facts:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "vedette": version("vedette"),
        "python": platform.python_version(),
        "os": release.get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "board": _text("/proc/device-tree/model"),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_quota_cores": _cpu_quota(),
    }


def _cpu_quota() -> float | None:
    """Cores a container may use at a time, None when it is not limited."""
    quota, _, period = (_text("/sys/fs/cgroup/cpu.max") or "max 100000").partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def _memory() -> Facts:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    limit = _text("/sys/fs/cgroup/memory.max")
    return {
        "total_mb": int(fields["MemTotal"].split()[0]) // 1024,
        "available_mb": int(fields["MemAvailable"].split()[0]) // 1024,
        "container_limit_mb": int(limit) >> 20 if limit and limit.isdigit() else None,
    }


def _limits() -> Facts:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"open_files": soft, "open_files_most": hard}


def _shared_memory() -> Facts:
    usage = shutil.disk_usage("/dev/shm")
    return {"total_mb": usage.total >> 20, "free_mb": usage.free >> 20}


def _gpu() -> Facts:
    driver = _text("/proc/driver/nvidia/version")
    devices = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    return {"present": bool(devices), "devices": devices, "driver": driver and driver.splitlines()[0], "names": _smi()}


def _smi() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run(
            [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ["nvidia-smi did not answer within 10 s: the driver hangs"]
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def _optional() -> Facts:
    return {name: _version_of(name) for name in OPTIONAL}


def _version_of(name: str) -> str | None:
    for spelling in (name, f"{name}-cu12", f"{name}-cu13"):
        try:
            return version(spelling)
        except PackageNotFoundError:
            continue
    return None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None  # not a fault: most machines lack most of these files
