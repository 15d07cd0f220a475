"""The jsonl sink: every alert is one line of a real file, whatever is killed, cut or renamed."""

from __future__ import annotations

from pathlib import Path

from tests.streamer.sinks.sink_ends import commit, numbers, start, until
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.sinks.base import Place
from vedette.streamer.sinks.jsonl import JsonlConfig


def test_jsonl_writes_every_alert_once_across_restarts(outbox: Outbox, tmp_path: Path) -> None:
    """One line an alert, byte for byte the public JSON, and a restart neither repeats nor skips."""
    path = tmp_path / "out.jsonl"
    start(outbox, JsonlConfig(path=str(path))).stop()
    for _ in range(3):
        runner = start(outbox, JsonlConfig(path=str(path)))
        commit(outbox, 40, runner)
        until(lambda r=runner: r.status()["lag"] == 0)  # type: ignore[misc]
        runner.stop()
    reader = OutboxReader(outbox.path.parent)
    assert path.read_bytes() == b"".join(a.body + b"\n" for a in reader.page(0).alerts)
    reader.close()


def test_jsonl_mends_a_torn_line_and_trusts_its_last_whole_one(outbox: Outbox, tmp_path: Path) -> None:
    """A crash between write and cursor: the torn line goes, what is already there is not written again."""
    path = tmp_path / "out.jsonl"
    commit(outbox, 5)
    reader = OutboxReader(outbox.path.parent)
    alerts = reader.page(0).alerts
    reader.close()
    path.write_bytes(b"".join(a.body + b"\n" for a in alerts[:3]) + alerts[3].body[:50])
    sink = JsonlConfig(path=str(path)).connect(Place("yard", outbox.stream, 0))
    assert sink.deliver(alerts) == 5
    sink.close()
    assert numbers(path.read_text().splitlines()) == [1, 2, 3, 4, 5]


def test_jsonl_appends_to_strangers_lines_and_follows_rotation(outbox: Outbox, tmp_path: Path) -> None:
    """Other content stays; a file that was renamed away is begun anew."""
    path = tmp_path / "out.jsonl"
    path.write_text("# mine\n")
    commit(outbox, 2)
    reader = OutboxReader(outbox.path.parent)
    alerts = reader.page(0).alerts
    reader.close()
    sink = JsonlConfig(path=str(path)).connect(Place("yard", outbox.stream, 0))
    sink.deliver(alerts[:1])
    path.rename(tmp_path / "out.1")
    sink.deliver(alerts[1:])
    sink.close()
    assert (tmp_path / "out.1").read_text().startswith("# mine\n{")
    assert numbers(path.read_text().splitlines()) == [2]


def test_jsonl_without_its_folder_waits_for_it(outbox: Outbox, tmp_path: Path) -> None:
    """A mount that is not there is an error that passes, not a file in the wrong place."""
    path = tmp_path / "mount" / "out.jsonl"
    runner = start(outbox, JsonlConfig(path=str(path)))
    commit(outbox, 3, runner)
    until(lambda: runner.status()["state"] == "retrying")
    assert "mount" in runner.status()["error"]
    path.parent.mkdir()
    until(lambda: runner.status()["lag"] == 0)
    runner.stop()
    assert numbers(path.read_text().splitlines()) == [1, 2, 3]
