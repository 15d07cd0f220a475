"""`vedette bench transport` runs, counts only right frames, and says what it compared. Its figures are not judged here."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from vedette.streamer.bench import transport
from vedette.streamer.bench.transport_peers import checksum, rows


@pytest.mark.slow
def test_the_document_has_what_it_promises(capsys: pytest.CaptureFixture[str]) -> None:
    """Engine size, one short round: all transports that are installed deliver, none of them a wrong frame."""
    parser = argparse.ArgumentParser()
    transport.add_arguments(parser)
    status = transport.run(parser.parse_args(["--seconds", "0.3", "--rounds", "1", "--size", "416x256"]))
    document = json.loads(capsys.readouterr().out)
    assert status == 0
    entry = document["sizes"]["416x256"]
    assert {"vedette", "pyzmq-copy", "pyzmq-zerocopy"} <= set(entry["transports"])
    for name, paces in entry["transports"].items():
        assert set(paces) == {"flat_out", "paced_30_fps"}
        for result in paces.values():
            assert result["delivered"] >= 5, name
            assert result["wrong"] == 0
    assert document["p50_ms"]["416x256"] == entry["transports"]["vedette"]["paced_30_fps"]["p50_ms"]
    if "imagezmq" in entry["transports"]:
        peer = entry["transports"]["imagezmq"]["flat_out"]["fps"]
        assert document["ratio_vs_imagezmq"]["416x256"] == entry["transports"]["vedette"]["flat_out"]["fps"] / peer
    else:
        assert document["ratio_vs_imagezmq"]["416x256"] is None


def test_the_checksum_notices_a_stale_and_a_torn_frame() -> None:
    """Different pictures differ, half of one and half of another differ from both, a single changed byte is seen."""
    first, second = (np.tile(row, (31, 1, 1)) for row in rows(45)[:2])
    torn = first.copy()
    torn[15:] = second[15:]
    flipped = first.copy()
    flipped[-1, -1, -1] ^= 1
    assert len({checksum(p) for p in (first, second, torn, flipped)}) == 4
    assert checksum(first) == checksum(np.ascontiguousarray(first))
