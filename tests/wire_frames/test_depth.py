"""Frames of BookTrader's ladder."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bt_ibkr.errors import WireError
from bt_ibkr.model.market import DepthLevel
from bt_ibkr.wire.depth import LadderMerger


def frame(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"topic": "sbd+DU1+1", "data": list(rows)}).encode()


WHOLE = frame(
    {"row": 0, "focus": 0, "price": "10.04", "ask": "1,200"},
    {"row": 1, "focus": 0, "price": "10.03", "ask": "300"},
    {"row": 2, "focus": 1, "price": "100 @ 10.02"},
    {"row": 3, "focus": 0, "price": "10.01", "bid": "500"},
    {"row": 4, "focus": 0, "price": "10.00", "bid": "2K"},
)


def test_the_whole_ladder() -> None:
    book = LadderMerger(7).apply(WHOLE, 5)
    assert (book.conid, book.time_ns) == (7, 5)
    assert book.bids == (DepthLevel(10.01, 500.0), DepthLevel(10.00, 2000.0))
    assert book.asks == (DepthLevel(10.03, 300.0), DepthLevel(10.04, 1200.0))
    assert (book.last_price, book.last_size) == (10.02, 100.0)


def test_the_documents_example() -> None:
    """Its words in place of numbers are numbers here; a row may be priced, bid or asked."""
    book = LadderMerger(1).apply(
        frame(
            {"row": 0, "focus": 0, "price": "5.4"},
            {"row": 1, "focus": 0, "price": "100 @ 5.3"},
            {"row": 2, "focus": 0, "price": "5.2", "bid": "10"},
            {"row": 3, "focus": 0, "price": "5.5", "ask": "20"},
            {"row": 4, "focus": 0, "price": "7 @ 5.6", "ask": "30"},
        ),
        1,
    )
    assert book.bids == (DepthLevel(5.2, 10.0),)
    assert book.asks == (DepthLevel(5.5, 20.0), DepthLevel(5.6, 30.0))


def test_rows_are_changed_and_emptied_one_by_one() -> None:
    merger = LadderMerger(1)
    merger.apply(WHOLE, 1)
    book = merger.apply(frame({"row": 3, "price": "10.01", "bid": "400"}), 2)
    assert book.bids[0] == DepthLevel(10.01, 400.0)
    book = merger.apply(frame({"row": 3, "price": "10.01"}, {"row": 1, "price": "10.03", "ask": "0"}), 3)
    assert book.bids == (DepthLevel(10.00, 2000.0),)
    assert book.asks == (DepthLevel(10.04, 1200.0),)
    assert merger.apply(frame({"row": 4, "price": ""}), 4).bids == ()


def test_a_price_that_moves_to_another_row_stands_there_alone() -> None:
    merger = LadderMerger(1)
    merger.apply(WHOLE, 1)
    book = merger.apply(frame({"row": 4, "price": "10.01", "bid": "50"}), 2)
    assert book.bids == (DepthLevel(10.01, 50.0),)


def test_a_whole_frame_replaces_everything() -> None:
    merger = LadderMerger(1)
    merger.apply(WHOLE, 1)
    book = merger.apply(
        frame({"row": 0, "price": "11.0", "ask": "1"}, {"row": 1, "price": "10.9", "bid": "2"}), 2
    )
    assert (book.bids, book.asks) == ((DepthLevel(10.9, 2.0),), (DepthLevel(11.0, 1.0),))
    # The last trade is still the last one.
    assert book.last_price == 10.02
    merger.clear()
    assert merger.apply(frame(), 3).last_price is None


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b'{"data":5}',
        b'{"data":[{"price":"1"}]}',
        b'{"data":[{"row":0,"price":"dear"}]}',
        b"\xff",
        b"{",
    ],
)
def test_what_cannot_be_read_changes_nothing(data: bytes) -> None:
    merger = LadderMerger(1)
    merger.apply(WHOLE, 1)
    with pytest.raises(WireError):
        merger.apply(data, 2)
    assert len(merger.apply(frame({"row": 3, "price": "10.01", "bid": "500"}), 3).bids) == 2
