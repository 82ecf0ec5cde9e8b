"""Fault 85: the ways in which IBKR writes numbers, over sockets, down to bars and orders.

The right number or nothing; a previous close is never shown as a trade of today.
"""

from __future__ import annotations

from typing import Any

import pytest

from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.model.market import DataQuality, Missing, Tick
from bt_ibkr.services.datanames import parse_dataname
from tests.faults.conftest import AAPL, Bed, MakeBed

pytestmark = pytest.mark.filterwarnings("error")


def send(bed: Bed, **fields: Any) -> None:
    """A frame as the real server writes it, to every socket."""
    body = {"topic": f"smd+{AAPL}", "conid": AAPL, "conidEx": str(AAPL), "_updated": 1_777_552_110_061}
    body |= {name.lstrip("_"): value for name, value in fields.items()}

    def work(server: EmulatorServer) -> None:
        for one in server.core.hub.connections:
            one.send(body)

    bed.emulator.call(work)
    bed.settle()


@pytest.fixture
def quiet(bed: MakeBed) -> tuple[Bed, TickBacklog]:
    """A stream of Apple in a market that has not begun, with every further field."""
    made = bed()
    ticks = TickBacklog()
    contract = made.connection.resolve(parse_dataname("AAPL"))
    extras = frozenset({"fee_rate", "shortable_shares", "change_percent", "average_volume", "prior_close"})
    made.connection.subscribe_ticks(contract, ticks, extras)
    made.until(lambda: ticks)
    made.settle()
    return made, ticks


def test_prices_are_right(quiet: tuple[Bed, TickBacklog]) -> None:
    bed, ticks = quiet
    spellings: tuple[tuple[Any, float], ...] = (
        ("189.30", 189.30),
        ("1,234.50", 1234.50),
        ("1.2M", 1_200_000.0),
        (189.3, 189.3),
        (190, 190.0),
        ("H189.30", 189.30),
        ("0.00005", 0.00005),
        ("-3.25", -3.25),
    )
    for text, price in spellings:
        send(bed, _31=text)
        assert ticks[-1].last == price
        assert ticks[-1].halted is (isinstance(text, str) and text.startswith("H"))


FIELDS = {"31": "last", "84": "bid", "86": "ask", "88": "bid_size", "7059": "last_size", "7762": "volume"}


def test_what_is_no_number_is_nothing(quiet: tuple[Bed, TickBacklog]) -> None:
    """Never 0, and nothing is traded by it. Null is what a field that was left out is: no change."""
    bed, ticks = quiet
    bid = 100.0
    for field in FIELDS:
        for text in ("", "-", "N/A", None, "NaN", "None"):
            bid += 1
            send(bed, **{"84": str(bid), field: "150.25"})
            before = len(ticks)
            send(bed, **{"84": str(bid + 0.5), field: text})
            value = getattr(ticks[-1], FIELDS[field])
            if text is not None:
                assert value is None, (field, text)
            elif field != "84":
                assert value == 150.25, field
            assert not any(tick.traded for tick in list(ticks)[before:])


def test_nonsense_changes_nothing(quiet: tuple[Bed, TickBacklog]) -> None:
    bed, ticks = quiet
    send(bed, _31="150.25", _84="150.20")
    nonsense: tuple[Any, ...] = ("inf", "1e400", "1_000", "0x10", "zwölf", "٣", [], {}, True, 1e16)
    for text in nonsense:
        before = len(ticks)
        send(bed, _31=text, _84="160.00")
        assert len(ticks) == before, text
    send(bed, _84="150.21")
    assert (ticks[-1].last, ticks[-1].bid) == (150.25, 150.21)


def test_a_previous_close_is_no_trade(quiet: tuple[Bed, TickBacklog]) -> None:
    bed, ticks = quiet
    first = ticks[-1]
    assert first.last is None  # the emulator itself says C230.00 before the first trade
    send(bed, _31="C189.30", _7762="0")
    send(bed, _31="C189.30", _7762="0")
    send(bed, _84="189.00", _86="189.40")
    assert all(tick.last is None and tick.traded == 0.0 for tick in ticks)
    quote = bed.connection.quote(bed.connection.resolve(parse_dataname("AAPL")))
    assert quote is not None
    assert (quote.prior_close, quote.missing["last"]) == (189.30, Missing.NO_TRADE)
    # Nor is it a bid or an ask.
    send(bed, _84="C188.00")
    assert ticks[-1].bid is None
    send(bed, _31="189.35", _7762="100", _7059="100")
    assert (ticks[-1].last, ticks[-1].traded) == (189.35, 100.0)


def test_a_halt_is_marked_until_it_is_lifted(quiet: tuple[Bed, TickBacklog]) -> None:
    bed, ticks = quiet
    send(bed, _31="189.30")
    send(bed, _31="H189.30")
    assert ticks[-1].halted
    send(bed, _84="189.10")
    assert ticks[-1].halted
    send(bed, _31="189.40")
    assert not ticks[-1].halted


def test_sizes_and_further_fields(quiet: tuple[Bed, TickBacklog]) -> None:
    bed, ticks = quiet
    send(bed, _88="1,300", _85="12.2M", _7059="1.5K", _7637="0.54%", _7636="12.2M", _83=-0.56, _7282="3B")
    tick = ticks[-1]
    assert (tick.bid_size, tick.ask_size, tick.last_size) == (1300.0, 12.2e6, 1500.0)
    assert tick.extras is not None
    wanted = {"fee_rate": 0.54, "shortable_shares": 12.2e6, "change_percent": -0.56, "average_volume": 3e9}
    assert {name: tick.extras[name] for name in wanted} == wanted
    send(bed, _7637="N/A", _83="", _7741="C193.18")
    extras = ticks[-1].extras
    assert extras is not None
    assert "fee_rate" not in extras
    assert "change_percent" not in extras
    assert extras["prior_close"] == 193.18


def test_a_further_field_that_nobody_understands_spoils_no_quote(quiet: tuple[Bed, TickBacklog]) -> None:
    bed, ticks = quiet
    send(bed, _84="150.20", _7637="plenty", _7636={"shares": 5})
    assert ticks[-1].bid == 150.20
    assert "fee_rate" not in (ticks[-1].extras or {})


def test_the_quality_goes_with_each_tick(quiet: tuple[Bed, TickBacklog]) -> None:
    bed, ticks = quiet
    codes = (
        ("DPB", DataQuality.DELAYED, False),
        ("ZB", DataQuality.FROZEN, False),
        ("YB", DataQuality.FROZEN_DELAYED, False),
        ("N", DataQuality.NOT_SUBSCRIBED, False),
        ("i", DataQuality.INCOMPLETE, False),
        ("RpB", DataQuality.REALTIME, True),
        ("Xq", DataQuality.UNKNOWN, True),
    )
    for code, quality, live in codes:
        send(bed, _6509=code, _84="2.0")
        tick: Tick = ticks[-1]
        assert (tick.quality, tick.quality.live, tick.bid) == (quality, live, 2.0)
        send(bed, _84="3.0")
        assert ticks[-1].quality is quality
