"""Where the session's thread and cerebro's thread meet."""

from __future__ import annotations

from collections import deque
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class WakeUp:
    """One flag that many producers raise and one consumer waits for.

    Raising it again before the consumer has looked costs one attribute read. The consumer must look at
    every mailbox *after* ``wait`` returned: the flag is lowered before it returns, so whatever is appended
    later raises it again.
    """

    __slots__ = ("_queue", "_raised")

    def __init__(self) -> None:
        self._raised = False
        self._queue: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Raise the flag; from any thread."""
        if not self._raised:
            self._raised = True
            self._queue.put(None)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the flag is raised, at most ``timeout_s``; lower it. True if it was raised."""
        try:
            if timeout_s > 0:
                self._queue.get(timeout=timeout_s)
            else:
                self._queue.get_nowait()
        except Empty:
            return False
        self._raised = False
        return True


class Mailbox(Generic[T]):
    """Events for one consumer, in order, never dropped. Appending wakes the consumer.

    Args:
        wake: The consumer's flag.
    """

    __slots__ = ("_items", "_wake")

    def __init__(self, wake: WakeUp) -> None:
        self._items: deque[T] = deque()
        self._wake = wake

    def append(self, item: T) -> None:
        """Put ``item`` in; from any thread."""
        self._items.append(item)
        self._wake.set()

    def take(self) -> T | None:
        """The oldest item, or ``None``; on the consumer's thread."""
        return self._items.popleft() if self._items else None

    def __len__(self) -> int:
        return len(self._items)
