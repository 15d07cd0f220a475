"""Restarting: soon for an accident, slowly for a habit."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from vedette.streamer.supervisor.restart import FREE_RESTARTS, Backoff, Policy


def waits(count: int, policy: Policy, lived_s: float = 0.1) -> list[float]:
    backoff = Backoff(policy, Random(7))
    return [backoff.died(lived_s) for _ in range(count)]


def test_the_first_two_restarts_do_not_wait() -> None:
    """A child that dies is back at once, twice."""
    assert waits(3, Policy())[:FREE_RESTARTS] == [0.0, 0.0]
    assert waits(3, Policy())[2] > 0


def test_waits_double_up_to_the_cap() -> None:
    """From the third death on each wait doubles, spread by a quarter, until the cap."""
    nominal = [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    for wait_s, expected_s in zip(waits(9, Policy(cap_s=8.0))[2:], nominal, strict=True):
        assert 0.75 * expected_s <= wait_s <= 1.25 * expected_s


def test_a_healthy_life_forgets_earlier_deaths() -> None:
    """After a life of healthy_s the next death is an accident again."""
    backoff = Backoff(Policy(), Random(7))
    for _ in range(10):
        backoff.died(0.1)
    assert backoff.died(60.0) == 0.0
    assert backoff.died(0.1) == 0.0
    assert backoff.died(0.1) > 0.0


def test_children_that_died_together_do_not_return_together() -> None:
    """Two children with the same deaths wait differently."""
    random = Random(7)
    one, other = Backoff(Policy(), random), Backoff(Policy(), random)
    assert [one.died(0.1) for _ in range(5)][2:] != [other.died(0.1) for _ in range(5)][2:]


@given(st.lists(st.floats(0, 1000), max_size=200), st.floats(0.01, 100))
def test_no_wait_is_negative_or_beyond_the_cap(lives_s: list[float], cap_s: float) -> None:
    """Whatever the lives, a wait lies within 0 and the spread cap; a thousand deaths do not overflow."""
    backoff = Backoff(Policy(cap_s=cap_s), Random(1))
    for lived_s in [*lives_s, *[0.0] * 100]:
        assert 0 <= backoff.died(lived_s) <= cap_s * 1.25


def test_years_of_deaths_do_not_overflow() -> None:
    """The exponent is bounded."""
    assert waits(5000, Policy())[-1] <= 37.5
