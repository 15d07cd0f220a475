"""``vedette watch``: subscribe to alerts, tracks or status, a line at a time.

Alerts come exactly once and in order, whatever happens to the hub; with --from what was missed comes first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zmq

from vedette.streamer.client import Gap, subscribe
from vedette.streamer.keys.curve import ClientKeys, public_key_of
from vedette.streamer.keys.folder import read_key
from vedette.streamer.types import CAMERA_NAME

ENDPOINT = "tcp://127.0.0.1:5556"
#: A hub says something every second; after so long without a word the user is told that nobody is there.
SILENCE_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette watch`` takes."""
    parser.add_argument("endpoint", nargs="?", default=ENDPOINT, type=_endpoint, help=f"publish address ({ENDPOINT})")
    parser.add_argument("--camera", type=_camera, help="only this camera")
    parser.add_argument("--topic", choices=("alert", "track", "status"), default="alert", help="default: alert")
    parser.add_argument(
        "--from", dest="since", type=_seq, metavar="SEQ", help="the last seq you have seen, 0 for all; else live only"
    )
    parser.add_argument("--replay", type=_endpoint, metavar="ENDPOINT", help="replay address (else the hub tells it)")
    parser.add_argument("--key", type=Path, metavar="FILE", help="your secret key, where the hub asks for one")
    parser.add_argument("--server-key", metavar="KEY", help="the site's public key, or the file that holds it")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument("--count", type=_count, metavar="N", help="end after N lines")


def run(args: argparse.Namespace) -> int:
    """Print until ``--count`` is reached or the reader leaves. Exit 0; 2 for options that contradict each other.

    Raises ConfigError (exit 2) for keys that are none.
    """
    if args.topic != "alert" and (args.since is not None or args.replay is not None):
        print(f"vedette watch: --from and --replay are only for alerts, got --topic {args.topic}", file=sys.stderr)
        return 2
    args.secret = None if args.key is None else read_key(args.key, secret=True)
    args.server = None if args.server_key is None else public_key_of(args.server_key)
    keys = ClientKeys.of(args.server, args.secret)
    lines = _alerts(args) if args.topic == "alert" else _lossy(args, keys)
    if args.count == 0:
        return 0
    for number, line in enumerate(lines, 1):
        print(line, flush=True)
        if number == args.count:
            break
    return 0


def _alerts(args: argparse.Namespace) -> Iterator[str]:
    write: Callable[[dict[str, Any]], str] = alert_line if args.format == "text" else _json

    def tell_gap(gap: Gap) -> None:
        text = gap_line(gap) if args.format == "text" else _json(gap.to_json())
        print(text, file=sys.stderr if args.format == "text" else sys.stdout, flush=True)

    with subscribe(
        args.endpoint,
        replay=args.replay,
        since=args.since,
        camera=args.camera,
        on_gap=tell_gap,
        server_key=args.server,
        secret_key=args.secret,
    ) as subscription:
        first = subscription.next(SILENCE_S)
        if first is None and subscription.stream is None:
            print(
                f"vedette watch: nothing heard from {args.endpoint} yet; is vedette running, and {_about_keys(args)}?",
                file=sys.stderr,
                flush=True,
            )
        if first is not None:
            yield write(first)
        yield from map(write, subscription)


def _about_keys(args: argparse.Namespace) -> str:
    return (
        "is this key let in there (vedette keys list)" if args.secret else "does it ask for a key (--key, --server-key)"
    )


def _lossy(args: argparse.Namespace, keys: ClientKeys | None) -> Iterator[str]:
    """Tracks and status: what arrives, as it arrives."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, 1)
        if keys is not None:
            keys.secure(socket, args.endpoint)
        socket.connect(args.endpoint)
        wanted = f"{args.topic}.{args.camera or ''}"
        socket.subscribe(wanted)
        while True:
            topic, raw = socket.recv_multipart()
            name = topic.decode("ascii", "replace")
            if args.camera and name != wanted:
                continue  # ZeroMQ matches beginnings: dock also finds dock2
            message = json.loads(raw)
            yield _json({"topic": name, **message}) if args.format == "json" else telemetry_line(name, message)


def alert_line(alert: dict[str, Any]) -> str:
    """One alert for people: time, camera, what, where, how sure."""
    words = [
        alert["time"],
        f"#{alert['seq']}",
        alert["severity"].upper().ljust(8),
        alert["camera"],
        f"{alert['rule']} {alert['phase']}",
    ]
    if alert["label"]:
        words.append(alert["label"])
    if alert["score"] is not None:
        words.append(f"{alert['score']:.2f}")
    if alert["zone"]:
        words.append(f"in {alert['zone']}")
    if alert["track_ids"]:
        words.append(" ".join(alert["track_ids"]))
    if alert["explain"].get("reason"):
        words.append(f"({alert['explain']['reason']})")
    if alert["latency_ms"]["total"] is not None:
        words.append(f"[{alert['latency_ms']['total']:.0f} ms]")
    return "  ".join(_plain(word) for word in words)


def gap_line(gap: Gap) -> str:
    """What is missing, for people."""
    return f"alerts {gap.first} to {gap.last} are gone: {gap.reason}"


def telemetry_line(topic: str, message: dict[str, Any]) -> str:
    """A track or status message for people: its plain values, and how many of what it lists."""
    words = [topic]
    for key, value in message.items():
        if isinstance(value, list):
            words.append(f"{key}={len(value)}")
        elif isinstance(value, dict):
            inner = ",".join(f"{name}:{part}" for name, part in value.items() if isinstance(part, int | float | str))
            words.append(f"{key}={{{inner}}}")
        elif value is not None and key != "schema":
            words.append(f"{key}={value}")
    return _plain("  ".join(words))


def _plain(text: str) -> str:
    """Without control characters: what a camera or a rule is called must not drive the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _json(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=True, separators=(",", ":"))


def _endpoint(text: str) -> str:
    if not text.startswith(("tcp://", "ipc://")):
        raise argparse.ArgumentTypeError(f"needs tcp://HOST:PORT or ipc:///PATH, got {text!r}")
    return text


def _camera(text: str) -> str:
    if CAMERA_NAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"needs [a-z0-9_-]{{1,32}}, got {text!r}")
    return text


def _seq(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"needs the last seq seen, 0 for all, got {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"needs a number of lines, got {text!r}")
    return int(text)
