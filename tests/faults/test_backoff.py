"""Pauses between attempts: growing, jittered, with a ceiling, and not reset by a success that did not last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.session.backoff import Backoff

FIRST_S, LONGEST_S, STEADY_S = 0.25, 30.0, 30.0


class Watch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_grows_to_the_ceiling_with_jitter(chances: list[float]) -> None:
    drawn = iter(chances)
    backoff = Backoff(FIRST_S, LONGEST_S, chance=lambda: next(drawn))
    for attempt, chance in enumerate(chances):
        plain = min(FIRST_S * 2**attempt, LONGEST_S)
        assert backoff.pause_s() == plain * (0.75 + 0.5 * chance)
    assert backoff.attempts == len(chances)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=60))
def test_only_a_lasting_success_starts_anew(history: list[tuple[bool, float]]) -> None:
    """Against a model: the exponent counts attempts since the last success that stood for ``steady_s``."""
    watch = Watch()
    backoff = Backoff(FIRST_S, LONGEST_S, steady_s=STEADY_S, chance=lambda: 0.5, monotonic=watch)
    exponent = 0
    for succeeded, lasted in history:
        if succeeded:
            backoff.succeeded()
            began = watch.now
            watch.now += lasted
            # As the watch shows it: its sums are rounded.
            if watch.now - began >= STEADY_S:
                exponent = 0
        assert backoff.pause_s() == min(FIRST_S * 2**exponent, LONGEST_S)
        exponent += 1


def test_two_clients_do_not_march_in_step() -> None:
    first, second = Backoff(FIRST_S, LONGEST_S), Backoff(FIRST_S, LONGEST_S)
    assert [first.pause_s() for _ in range(8)] != [second.pause_s() for _ in range(8)]
