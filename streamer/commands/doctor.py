"""``vedette doctor``: what this machine has, which backend is chosen and why, and what to install."""

from __future__ import annotations

import argparse
import json
from importlib.resources import files

from vedette.streamer.machine import Facts, machine_facts
from vedette.streamer.rules import KINDS

#: Below these, something will fail at an inconvenient moment.
FEW_FILES, LITTLE_SHM_MB, LITTLE_MEMORY_MB = 1024, 128, 1024

#: The model card of everything that rules learn from.
LEARNED_CARD = "vedette-events.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette doctor`` takes."""
    parser.add_argument("--format", choices=("text", "json"), default="text", help="for people, or for programs")


def run(args: argparse.Namespace) -> int:
    """Print the facts and the advice; always exit 0, a report is not a failure."""
    facts = machine_facts()
    advice = advice_for(facts)
    if args.format == "json":
        told = {"rules": limits_of_rules(), "learned_rules_fail": failures_of_learned(), "advice": advice}
        print(json.dumps({**facts, **told}, indent=2))
        return 0
    for topic, values in facts.items():
        print(f"{topic.replace('_', ' ')}:")
        for name, value in values.items():
            print(f"  {name.replace('_', ' '):<20} {_shown(value)}")
    print("rules must not be used for:")
    for kind, limits in limits_of_rules().items():
        print(f"  {kind:<20} {limits}")
    print("known failures of learned rules:")
    for line in failures_of_learned():
        print(f"  - {line}")
    print("advice:" if advice else "advice: nothing to do")
    for line in advice:
        print(f"  - {line}")
    return 0


def limits_of_rules() -> dict[str, str]:
    """What each kind of rule must not be used for, where it says so."""
    return {kind: config.not_for for kind, config in KINDS.items() if config.not_for}


def failures_of_learned() -> list[str]:
    """The known failures on the model card of the learned rules, one a line; what the card says is not said twice."""
    card = (files("vedette.engines.weights") / LEARNED_CARD).read_text(encoding="utf-8")
    section = card.partition("\n## Known failures\n")[2].partition("\n## ")[0]
    return [" ".join(item.split()) for item in section.split("\n* ") if item.strip()]


def advice_for(facts: Facts) -> list[str]:
    """What a person should do about the facts; empty when all is well."""
    lines = [f"{topic} cannot be used: {facts[topic]['error']}" for topic in facts if "error" in facts[topic]]
    lines += _runtime_advice(facts) + _gpu_advice(facts)
    if facts["limits"].get("open_files", FEW_FILES) < FEW_FILES:
        lines.append(f"raise the limit of open files to {FEW_FILES} or more (ulimit -n, LimitNOFILE=)")
    if facts["shared_memory"].get("free_mb", LITTLE_SHM_MB) < LITTLE_SHM_MB:
        lines.append("/dev/shm is small; give the container --shm-size=256m, or set XDG_RUNTIME_DIR to another tmpfs")
    memory_mb = facts["memory"].get("container_limit_mb") or facts["memory"].get("total_mb", LITTLE_MEMORY_MB)
    if memory_mb < LITTLE_MEMORY_MB:
        lines.append(f"{memory_mb} MB of memory carry one or two cameras; lower evidence.ring_mb for more")
    return lines


def _runtime_advice(facts: Facts) -> list[str]:
    lines = []
    if facts["opencv"].get("ffmpeg") is False:
        lines.append(
            "cv2 was built without FFmpeg, so rtsp:// and files do not open: pip install opencv-python-headless"
        )
    if facts["zmq"].get("curve") is False:
        lines.append("libzmq was built without CURVE, so tcp cannot be encrypted: pip install --force-reinstall pyzmq")
    if facts["optional"].get("paho-mqtt", "") is None:
        lines.append("for MQTT sinks: pip install 'vedette[mqtt]'")
    return lines


def _gpu_advice(facts: Facts) -> list[str]:
    optional = facts["optional"]
    if not facts["gpu"].get("present") or "error" in optional:
        return []
    if not (optional["tensorrt"] or optional["tensorrt_rtx"]):
        geforce = any("GeForce" in name or "RTX" in name for name in facts["gpu"]["names"])
        return [f"a GPU is there and no TensorRT: pip install 'vedette[{'rtx' if geforce else 'gpu'}]'"]
    if not optional["pycuda"]:
        return ["TensorRT is there and PyCUDA is not: pip install 'vedette[gpu]' (needs the CUDA toolkit to build)"]
    return []


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return "-" if value is None else str(value)
