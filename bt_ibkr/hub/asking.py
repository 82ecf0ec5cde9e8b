"""Requests of a strategy's process on their way to an answer.

Pure: no sockets and no clock but the one that ages go by. A request is *held back* until a hub that is new to this
process was brought up to date, then *under way* under a number of the present joining, and then done. What is under
way is sent again where the hub says that it has not got it; when the process joins anew, it gets a new number.
"""

from __future__ import annotations

import concurrent.futures
from typing import Any, Final

from bt_ibkr.errors import BtIbkrError, SessionError
from bt_ibkr.hub.ages import awake_or_asleep_s
from bt_ibkr.hub.protocol import Told, error_of, read

#: Beats of the hub that say less was asked than was sent, before it is sent again.
_BEATS_BEFORE_AGAIN: Final = 2


class Asked:
    """One request.

    Args:
        kind: One of ``requests.REQUESTS``.
        raw: Its body, encoded.
        answer: Type of the answer.
        first: It brings a new hub up to date, and goes before what waits for that.

    Attributes:
        asked_s: When it was asked, by the clock for ages.
        future: Has the answer.
    """

    __slots__ = ("answer", "asked_s", "first", "future", "kind", "raw")

    def __init__(self, kind: str, raw: Any, answer: Any, *, first: bool) -> None:
        self.kind = kind
        self.raw = raw
        self.answer = answer
        self.first = first
        self.asked_s = awake_or_asleep_s()
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def fail(self, problem: BtIbkrError) -> None:
        """There is no answer."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(problem)

    def finish(self, reply: Told) -> None:
        """This is the answer."""
        if not self.future.set_running_or_notify_cancel():
            return
        if reply.problem is not None:
            self.future.set_exception(error_of(reply.problem))
            return
        try:
            value = read(reply.body, self.answer)
        except BtIbkrError as problem:
            self.future.set_exception(problem)
        else:
            self.future.set_result(value)


class Asking:
    """All requests without an answer. ``open`` is for any thread, everything else for the link's."""

    def __init__(self) -> None:
        self._open: set[Asked] = set()
        self._under_way: dict[int, Asked] = {}
        self._held_back: list[Asked] | None = None
        #: Of the newest request in this joining.
        self._number = 0
        self._short_beats = 0
        self._refusal: BtIbkrError | None = None

    def __len__(self) -> int:
        """Those whose answer was not taken in by whoever asked."""
        return len(self._open)

    def __getitem__(self, number: int) -> Asked:
        """What is under way by that number."""
        return self._under_way[number]

    def open(self, asked: Asked) -> None:
        """It counts as unanswered from now on."""
        self._open.add(asked)

    def put(self, asked: Asked) -> int | None:
        """The number to send it under; ``None`` if it is not to be sent now."""
        if self._refusal is not None:
            self._fail(asked, self._refusal)
            return None
        if asked.future.cancelled():
            self._open.discard(asked)
            return None
        if self._held_back is not None and not asked.first:
            self._held_back.append(asked)
            return None
        self._number += 1
        self._under_way[self._number] = asked
        return self._number

    def answered(self, reply: Told) -> None:
        """The hub has answered one; who asked is told before this returns."""
        asked = self._under_way.pop(reply.to, None)
        if asked is not None:
            asked.finish(reply)
            self._open.discard(asked)

    # -- losses ----------------------------------------------------------------------------------------

    def lost(self) -> None:
        """The link was broken: what was sent meanwhile has gone nowhere, most probably."""
        self._short_beats = _BEATS_BEFORE_AGAIN

    def again(self, has: int) -> list[int]:
        """The numbers to send again to a hub that says it has all up to ``has``."""
        if has >= self._number:
            self._short_beats = 0
            return []
        self._short_beats += 1
        if self._short_beats < _BEATS_BEFORE_AGAIN:
            return []
        self._short_beats = 0
        return [number for number in sorted(self._under_way) if number > has]

    # -- joining ---------------------------------------------------------------------------------------

    def joined(self) -> list[Asked]:
        """Numbers begin anew; what is to be put again, in its order."""
        waiting = self._take_all()
        self._number = 0
        self._short_beats = 0
        return waiting

    def hold_back(self) -> None:
        """A hub that is new to this process: it is brought up to date before it is asked anything else."""
        waiting = self.joined()
        # What was to bring up to date a hub that is gone itself: whoever waits for it gives up.
        for asked in waiting:
            if asked.first:
                self._fail(asked, SessionError("The hub was restarted once more."))
        self._held_back = [asked for asked in waiting if not asked.first]

    def release(self) -> list[Asked]:
        """It was brought up to date: what is to be put now."""
        held, self._held_back = self._held_back, None
        return held or []

    # -- ends ------------------------------------------------------------------------------------------

    def refuse(self, problem: BtIbkrError) -> None:
        """Nothing will be answered any more, also of what is asked later."""
        self._refusal = problem
        self.fail_all(problem)

    def fail_all(self, problem: BtIbkrError) -> None:
        """What has no answer gets none."""
        self._take_all()
        self._held_back = None
        for asked in sorted(self._open, key=lambda one: one.asked_s):
            self._fail(asked, problem)

    def _fail(self, asked: Asked, problem: BtIbkrError) -> None:
        asked.fail(problem)
        self._open.discard(asked)

    def _take_all(self) -> list[Asked]:
        under_way, self._under_way = list(self._under_way.values()), {}
        return [*(self._held_back or ()), *under_way]
