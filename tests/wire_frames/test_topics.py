"""What the client says: recorded messages, letter by letter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.wire import topics


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (topics.TIC, "tic"),
        (topics.subscribe_market_data("265598", ("31", "84")), 'smd+265598+{"fields":["31","84"]}'),
        (topics.subscribe_market_data("265598@NASDAQ", ["31"]), 'smd+265598@NASDAQ+{"fields":["31"]}'),
        (topics.unsubscribe_market_data("265598"), "umd+265598+{}"),
        (topics.subscribe_orders(), "sor+{}"),
        (topics.unsubscribe_orders(), "uor+{}"),
        (topics.subscribe_executions(), 'str+{"realtimeUpdatesOnly":false,"days":1}'),
        (topics.subscribe_executions(days=7), 'str+{"realtimeUpdatesOnly":false,"days":7}'),
        (topics.subscribe_executions(realtime_only=True), 'str+{"realtimeUpdatesOnly":true}'),
        (topics.unsubscribe_executions(), "utr"),
        (topics.subscribe_pnl(), "spl+{}"),
        (topics.unsubscribe_pnl(), "upl+{}"),
        (topics.subscribe_ledger("DU1"), "sld+DU1"),
        (topics.unsubscribe_ledger("DU1"), "uld+DU1+{}"),
        (topics.subscribe_summary("DU1"), "ssd+DU1"),
        (topics.unsubscribe_summary("DU1"), "usd+DU1+{}"),
    ],
)
def test_messages(made: str, wanted: str) -> None:
    assert made == wanted


@given(st.integers(1, 10**12), st.lists(st.from_regex(r"\A[0-9]{1,4}\Z"), max_size=8))
def test_three_parts_the_last_one_json(conid: int, fields: list[str]) -> None:
    topic, target, rest = topics.subscribe_market_data(str(conid), fields).split("+", 2)
    assert (topic, target, json.loads(rest)) == ("smd", str(conid), {"fields": fields})
