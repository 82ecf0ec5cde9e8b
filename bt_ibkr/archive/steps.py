"""The points between two durable steps of writing: tests end the process at each of them."""

from __future__ import annotations

from collections.abc import Callable

#: Called with the name of each step that is about to be done.
on_step: Callable[[str], None] | None = None


def step(name: str) -> None:
    """A durable step is about to be done."""
    if on_step is not None:
        on_step(name)
