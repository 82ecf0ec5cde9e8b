"""``hub status`` for people: whole words and numbers in every width, and what concerns the viewer."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from rich.console import Console, Group

from bt_ibkr.cli.hub_tables import short_name, status_tables
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.hub.books import BookView, Holding
from bt_ibkr.hub.status import Harm, HubStatus, PeerStatus, TopicStatus, Total
from bt_ibkr.model.trading import Trading, TradingState

NAMES = ("mean_reversion_pairs", "beta")
PEER: dict[str, Any] = {
    "role": "strategy",
    "host": "trading-host-3",
    "version": "1",
    "state": "live",
    "silent_s": 12.25,
    "since_ns": 0,
    "unheard": 0,
    "behind": 1234,
    "waiting": 10000,
    "lost": 7,
    "mended": 6,
    "slow": True,
    "topics": ("AAPL",),
    "orders": 5432,
    "orders_per_minute": 61.0,
    "refused": 3,
}


def holding(conid: int, quantity: int) -> Holding:
    return Holding(
        conid=conid,
        quantity=Decimal(quantity),
        average_price=225.8912,
        realised=-123456.78,
        commission=1234.5,
        bought=Decimal(987654),
        sold=Decimal(876543),
        flow=0.0,
    )


def status(*accounts: str, viewer: str = "") -> HubStatus:
    books = tuple(
        BookView(
            account=account,
            name=name,
            holdings=(holding(265598, 100 * sign), holding(12087792, -20000 * sign)),
        )
        for account in accounts
        for name, sign in zip(NAMES, (1, -1), strict=True)
        if not viewer or name == viewer
    )
    return HubStatus(
        hub="4db3dcb4",
        version="1",
        protocol=1,
        pid=1,
        since_ns=0,
        session=Metrics(state="streaming"),
        connected=True,
        accounts=accounts,
        peers=tuple(PeerStatus(name=name, pid=4194303 - number, **PEER) for number, name in enumerate(NAMES)),
        topics=(
            TopicStatus(
                name="AAPL-STK-SMART-USD", conid=265598, ticks=123456, ticks_per_s=50.25, subscribers=NAMES
            ),
            TopicStatus(
                name="AAPL-STK-SMART-USD",
                conid=265598,
                ticks=9,
                ticks_per_s=0.5,
                subscribers=NAMES,
                kind="book",
            ),
        ),
        books=books,
        totals=tuple(Total(account=account, conid=265598, quantity=Decimal(76)) for account in accounts),
        viewer=viewer,
        names={265598: "AAPL-STK-SMART-USD", 12087792: "EUR.USD-CASH-IDEALPRO-USD"},
        harm=Harm(malformed=1),
        trading=TradingState(mode=Trading.HALTED, reason="enough for today", by="alpha"),
    )


def shown(told: HubStatus, width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(Group(*status_tables(told, 0, out)))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_words_and_numbers_stay_whole(width: int) -> None:
    lines = shown(status("DU1234567"), width)
    assert max(len(line) for line in lines) <= width
    words = {word for line in lines for word in line.split()}
    assert {*NAMES, "AAPL", "EUR.USD", "trading-host-3", "4194303", "12.2", "1234", "10000", "5432"} <= words
    assert {"225.8912", "-123,456.78", "1,234.5", "987654", "876543", "-20000", "123456"} <= words
    for heading in ("streams", "behind", "waiting", "mended", "orders", "refused", "commission", "realized"):
        assert heading in words
    # A row is a line: each name stands once in a table, and no piece of one by itself.
    rows = [line for line in lines if line.strip().startswith(NAMES[0])]
    assert all(line.split()[0] == NAMES[0] for line in rows)


@pytest.mark.parametrize(("width", "tables"), [(80, 2), (140, 1)])
def test_a_table_that_is_too_wide_becomes_two(width: int, tables: int) -> None:
    lines = shown(status("DU1234567"), width)
    assert sum(line.split()[:1] == ["name"] for line in lines) == tables
    assert ("Their ticks and orders" in " ".join(lines)) is (tables == 2)


def test_a_halt_is_seen() -> None:
    assert "trading   halted, by alpha: enough for today" in [line.rstrip() for line in shown(status(), 80)]


def test_accounts_are_named_where_there_are_several() -> None:
    one, two = shown(status("DU1234567"), 120), shown(status("DU1234567", "DU7654321"), 120)
    assert any(line.startswith("Books of DU1234567") for line in one)
    assert any(line.split()[:2] == ["account", "book"] for line in two)
    assert sum(line.split()[:1] == ["DU7654321"] for line in two) >= 4


def test_who_does_not_see_all_is_told_so() -> None:
    lines = shown(status("DU1234567", viewer="beta"), 80)
    assert any("what concerns beta" in line for line in lines)
    assert any(line.split() == ["DU1234567", "AAPL", "76"] for line in lines)
    everything = shown(status("DU1234567"), 80)
    assert not any("Accounts have" in line for line in everything)


def test_nothing_yet() -> None:
    told = msgspec.structs.replace(status(), peers=(), topics=())
    words = " ".join(shown(told, 80))
    for text in ("no strategy has come yet", "nothing streams", "no book holds anything"):
        assert text in words


def test_names_without_what_goes_without_saying() -> None:
    assert short_name("AAPL-STK-SMART-USD") == "AAPL"
    assert short_name("EUR.USD-CASH-IDEALPRO-USD") == "EUR.USD"
    assert short_name("VOD-STK-LSE-GBP") == "VOD-STK-LSE-GBP"
