"""The quick ways of association find what the plain ways find: near pairs, and the best assignment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from vedette.streamer.tracking.association import DENSE, Pairs, assign, pairs_of


def facts(rng: np.random.Generator, n: int) -> np.ndarray:
    """The edges [4,n] of random boxes as association has them: left and top negative."""
    centre, half = rng.uniform(0, 2, (2, n)), rng.uniform(0.01, 0.2, (2, n))
    return np.concatenate([half - centre, half + centre])


def meeting(ours: np.ndarray, theirs: np.ndarray) -> set[tuple[int, int]]:
    """The pairs whose boxes have an area in common, one by one."""
    common = np.minimum(ours[:, :, None], theirs[:, None])
    return set(zip(*np.nonzero((common[:2] + common[2:] > 0).all(0)), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_no_pair_that_overlaps_is_missed_in_either_way_of_looking(n: int, m: int, seed: int) -> None:
    """One dense sweep finds exactly the boxes that overlap; the sweep along x finds them all, sorted by track."""
    rng = np.random.default_rng(seed)
    ours, theirs = facts(rng, n), facts(rng, m)
    true = meeting(ours, theirs)
    dense = pairs_of(ours, None, theirs, None)
    swept = pairs_of(ours, np.zeros(n, np.int64), theirs, np.zeros(m, np.int64))
    assert set(zip(*dense, strict=True)) == true
    assert set(zip(*swept, strict=True)) >= true
    for track, _ in (dense, swept):
        assert (np.diff(track) >= 0).all()


@pytest.mark.parametrize(("tracks", "sightings"), [(6, 4), (50, 47), (47, 50), (100, 100)])
@pytest.mark.parametrize("density", [0.02, 0.3])
@pytest.mark.parametrize("cameras", [1, 2])
def test_no_other_assignment_is_worth_more(tracks: int, sightings: int, density: float, cameras: int) -> None:
    """With the short cuts, the matches are one to one and worth what the solver alone reaches, crowded or not."""
    rng = np.random.default_rng(tracks * sightings)
    assert (tracks * sightings <= DENSE) == (tracks < 100)
    view = None if cameras == 1 else (np.arange(tracks) >= tracks // 2).astype(np.int64)
    lane = (np.arange(sightings) >= sightings // 2).astype(np.int64)
    gains = rng.uniform(0.1, 2, (tracks, sightings)) * (rng.random((tracks, sightings)) < density)
    if view is not None:
        gains *= view[:, None] == lane
    track, sighting = np.nonzero(gains)
    mine = np.full(tracks, -1)
    assign(Pairs(track, sighting, gains[track, sighting], gains[track, sighting]), view, mine, sightings)
    matched = np.flatnonzero(mine >= 0)
    assert len(set(mine[matched].tolist())) == len(matched)
    assert (gains[matched, mine[matched]] > 0).all()
    best = gains[linear_sum_assignment(gains, maximize=True)].sum()
    assert gains[matched, mine[matched]].sum() == pytest.approx(best)
