"""Sets of moments as spans ``[start, end)``: ascending, apart from each other, never empty."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]
Spans = tuple[Span, ...]


def union(spans: Iterable[Span]) -> Spans:
    """All moments of any of the spans, which may overlap and come in any order."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)


def subtract(spans: Iterable[Span], taken: Iterable[Span]) -> Spans:
    """The moments of ``spans`` that are in none of ``taken``."""
    rest = list(union(spans))
    for begin, stop in union(taken):
        left: list[Span] = []
        for start, end in rest:
            if stop <= start or end <= begin:
                left.append((start, end))
                continue
            left += [(start, begin)] if start < begin else []
            left += [(stop, end)] if stop < end else []
        rest = left
    return tuple(rest)


def overlap(spans: Iterable[Span], bound: Span) -> Spans:
    """The moments of ``spans`` inside ``bound``."""
    start, end = bound
    return union((max(begin, start), min(stop, end)) for begin, stop in spans)
