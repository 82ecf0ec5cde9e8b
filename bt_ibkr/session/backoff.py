"""Pauses between attempts: growing, jittered, with a ceiling."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


class Backoff:
    """The pauses of one kind of attempt.

    Args:
        first_s: The first pause.
        longest_s: The ceiling.
        steady_s: A success that lasted less than this does not start the pauses anew: what breaks again and
            again is tried more and more rarely.
        chance: Source of jitter, 0 to 1.
        monotonic: Seconds of a clock that never steps back.
    """

    def __init__(
        self,
        first_s: float,
        longest_s: float,
        *,
        steady_s: float = 30.0,
        chance: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._steady_s = steady_s
        self._chance = chance
        self._monotonic = monotonic
        self._next_s = first_s
        self._succeeded_at: float | None = None
        #: Attempts since the last lasting success.
        self.attempts = 0

    def succeeded(self) -> None:
        """The attempt worked; how long it lasts is judged at the next pause."""
        self._succeeded_at = self._monotonic()

    def pause_s(self) -> float:
        """The pause before the next attempt, seconds."""
        if self._succeeded_at is not None:
            if self._monotonic() - self._succeeded_at >= self._steady_s:
                self._next_s = self._first_s
                self.attempts = 0
            self._succeeded_at = None
        self.attempts += 1
        pause = min(self._next_s, self._longest_s)
        self._next_s = min(self._next_s * 2, self._longest_s)
        return pause * (0.75 + 0.5 * self._chance())
