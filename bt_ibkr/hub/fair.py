"""Whose order leaves next: strategies take turns, whatever each has waiting."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

_log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]

#: Submissions handed to the order desk at a time; it sends one after another, and looks for lost answers beside.
_AT_A_TIME: Final = 4


class FairQueue:
    """Work by owner; one piece of each in turn.

    Args:
        at_a_time: Pieces that may be under way together.
    """

    def __init__(self, at_a_time: int = _AT_A_TIME) -> None:
        self._free = at_a_time
        self._waiting: dict[str, deque[tuple[object, Work]]] = {}
        #: Owners with work, the next one first.
        self._turns: deque[str] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, owner: str, piece: object, work: Work) -> None:
        """Do it when it is its turn. Pieces of one owner begin in their order.

        Args:
            owner: Whose turn it takes.
            piece: By which it can be withdrawn.
            work: Does it.
        """
        queue = self._waiting.setdefault(owner, deque())
        queue.append((piece, work))
        if len(queue) == 1:
            self._turns.append(owner)
        self._go_on()

    def withdraw(self, owner: str, piece: object) -> bool:
        """Not to do it after all; whether it had not begun."""
        queue = self._waiting.get(owner, deque())
        for entry in queue:
            if entry[0] is piece:
                queue.remove(entry)
                if not queue:
                    del self._waiting[owner]
                    self._turns.remove(owner)
                return True
        return False

    def waiting(self, owner: str) -> int:
        """Pieces of an owner that have not begun."""
        return len(self._waiting.get(owner, ()))

    def _go_on(self) -> None:
        while self._free and self._turns:
            owner = self._turns.popleft()
            queue = self._waiting[owner]
            _, work = queue.popleft()
            if queue:
                self._turns.append(owner)
            else:
                del self._waiting[owner]
            self._free -= 1
            task = asyncio.get_running_loop().create_task(work(), name=f"hub-order-{owner}")
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free += 1
        if not task.cancelled() and task.exception() is not None:
            _log.error("hub-order-failed", exc_info=task.exception())
        self._go_on()

    async def close(self) -> None:
        """Drop what has not begun, break off what has."""
        self._turns.clear()
        self._waiting.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
