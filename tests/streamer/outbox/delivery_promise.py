"""The promise of delivery, told from outside: what was raised is committed once, and given once to everyone, in order."""

from __future__ import annotations

from collections import Counter

from tests.streamer.outbox.delivery_wire import Key
from tests.streamer.outbox.delivery_world import Reader, World


def check(world: World) -> None:
    """The promise of design section 5, told from outside."""
    committed = world.committed
    assert [a["seq"] for a in committed] == list(range(1, len(committed) + 1)), "seq has a hole"
    tellings = [(a["id"], a["rev"]) for a in committed]
    assert max(Counter(tellings).values(), default=1) == 1, "a telling was committed twice"
    last: dict[str, int] = {}
    for alert in committed:
        assert alert["prev"] == last.get(alert["camera"]), "prev is wrong"
        last[alert["camera"]] = alert["seq"]
    assert world.acked <= set(tellings), "acknowledged but not committed"
    _check_producers(world, tellings)
    for reader in world.readers:
        _check_reader(world, reader)
    for alert in committed:
        snapshot = alert["evidence"]["snapshot"]
        assert snapshot is None or world.relieved or (world.store / snapshot).is_file(), "a picture is missing"


def _check_producers(world: World, tellings: list[Key]) -> None:
    # an interrupted end takes the rev that a dead life's next telling would have had
    own = [a["explain"].get("reason") != "interrupted" for a in world.committed]
    place = {key: index for index, key in enumerate(tellings) if own[index]}
    living = {producer.boot for producer in world.producers}
    ended = {a["id"] for a in world.committed if a["phase"] == "end"}
    for boot, events in world.raised.items():
        arrived = [event for event in events if (event.id, event.rev) in place]
        if boot in living:
            assert len(arrived) == len(events), "an event of a living producer was lost"
        else:
            left_open = {event.id for event in arrived} - ended
            assert not left_open, f"incidents of a dead life stay open: {left_open}"
        for camera in {event.camera for event in arrived}:
            order = [place[event.id, event.rev] for event in arrived if event.camera == camera]
            assert order == sorted(order), "a camera's events were committed out of order"
        interrupted = {a["id"] for a in world.committed if a["explain"].get("reason") == "interrupted"}
        if boot in living:
            assert not interrupted & {event.id for event in events}, "a living producer's incident was interrupted"


def _check_reader(world: World, reader: Reader) -> None:
    mine = {a["seq"]: a for a in world.committed if reader.camera in (None, a["camera"])}
    seqs = [alert["seq"] for alert in reader.handled]
    assert seqs == sorted(set(seqs)), "a subscriber was given an alert twice or out of order"
    assert all(alert == mine.get(alert["seq"]) for alert in reader.handled), "a subscriber was given what is not so"
    gone = {seq for gap in reader.gaps for seq in range(gap.first, gap.last + 1)}
    assert set(mine) - set(seqs) <= gone, f"a subscriber missed {sorted(set(mine) - set(seqs) - gone)}"
    assert not gone & set(seqs), "a gap was told of what was given"
    assert all(seq <= world.floor for seq in gone), "a gap was told of what is there"
