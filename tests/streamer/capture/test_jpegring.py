"""The ring of JPEGs: the newest ones whole, in order, in no more memory than was taken at the start."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vedette.streamer.capture.jpegring import JpegRing


@given(st.integers(1, 60), st.lists(st.integers(1, 70), max_size=60))
def test_what_is_kept_is_whole_in_order_and_the_newest(nbytes: int, sizes: list[int]) -> None:
    """Whatever the sizes: every JPEG that is kept reads back as it came, they are the newest, and they fit."""
    ring, came = JpegRing(nbytes), list[tuple[int, bytes]]()
    for n, size in enumerate(sizes):
        jpeg = np.full(size, n, np.uint8)
        ring.push(n, jpeg)
        if size <= nbytes:
            came.append((n, jpeg.tobytes()))
        kept = [(k.mono_ns, ring.read(k)) for k in ring.kept]
        assert kept == came[len(came) - len(kept) :]
        assert bool(kept) == bool(came)
        assert ring.nbytes == sum(len(data) for _, data in kept) <= nbytes


def test_most_of_the_block_is_used() -> None:
    """JPEGs of like sizes fill the ring but for the piece that does not fit at its end."""
    ring = JpegRing(1000)
    for n in range(100):
        ring.push(n, np.zeros(60 + n % 7, np.uint8))
    assert ring.nbytes >= 1000 - 2 * 66
