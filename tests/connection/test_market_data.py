"""Market data over sockets: further fields, quotes, lines, ladders and scans."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import DepthError, LinesError, UsageError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import DataQuality, DepthBook, Missing, Tick
from bt_ibkr.model.scanner import ScanRequest
from bt_ibkr.services.datanames import parse_dataname
from tests.connection.conftest import ACCOUNT, Client, Connect, StartEmulator

AAPL, SPY = 265598, 756733
FIVE = ("AAPL", "SPY", "MSFT", "IBM", "EUR.USD")


def contract(client: Client, name: str = "AAPL") -> Contract:
    return client.connection.resolve(parse_dataname(name))


def stream(client: Client, name: str, *extras: str) -> TickBacklog:
    ticks = TickBacklog()
    client.connection.subscribe_ticks(contract(client, name), ticks, frozenset(extras))
    return ticks


def asked(emulator: EmulatorThread, path: str) -> int:
    rows = emulator.do("requests")["requests"]
    return sum(1 for row in rows if row["path"] == path)


def fields_of(emulator: EmulatorThread, conid: int) -> set[str]:
    """What the server sends of an instrument."""

    def look(server: Any) -> set[str]:
        found = server.core.hub._marketdata._slices[conid].subscriptions
        return {one.tag for subscription in found for one in subscription._watched}

    return emulator.call(look)


def tell(emulator: EmulatorThread, body: dict[str, Any]) -> None:
    """Send a frame to every socket."""

    def work(server: EmulatorServer) -> None:
        for one in server.core.hub.connections:
            one.send(body)

    emulator.call(work)


def cut(emulator: EmulatorThread) -> None:
    """Break every socket."""

    def work(server: EmulatorServer) -> None:
        for one in list(server.core.hub.connections):
            one.reset()

    emulator.call(work)


# --- further fields --------------------------------------------------------------------------------


def test_extras_come_with_ticks(emulator: EmulatorThread, connect: Connect) -> None:
    client = connect()
    client.step()
    ticks = stream(client, "AAPL", "shortable_shares", "fee_rate", "vwap", "bid", "shortable")
    client.until(lambda: ticks)
    client.step(200)
    last = ticks[-1]
    assert last.extras is not None
    assert set(last.extras) == {"shortable_shares", "fee_rate", "vwap"}
    assert last.extras["shortable_shares"] > 1_000_000
    traded = [tick for tick in ticks if tick.traded and tick.last is not None]
    money = sum(tick.traded * tick.last for tick in traded if tick.last is not None)
    assert last.extras["vwap"] == pytest.approx(money / sum(tick.traded for tick in traded))
    # One mapping as long as nothing in it changes.
    quiet = [(a, b) for a, b in zip(ticks, list(ticks)[1:], strict=False) if not b.traded]
    assert quiet
    assert all(a.extras is b.extras for a, b in quiet)
    quote = client.connection.quote(contract(client))
    assert quote is not None
    assert quote.texts == {"shortable": "Available"}
    assert quote.extras == last.extras
    assert (quote.last, quote.bid, quote.volume) == (last.last, last.bid, last.volume)


def test_plain_and_rich_subscriptions_share_a_stream(emulator: EmulatorThread, connect: Connect) -> None:
    client = connect()
    client.step()
    plain = stream(client, "AAPL")
    client.until(lambda: plain)
    assert plain[-1].extras is None
    rich = stream(client, "AAPL", "implied_vol")
    more = stream(client, "AAPL", "fee_rate")
    client.settle()
    client.step(50)
    quote_fields = {"31", "84", "86", "85", "88", "7059", "7762", "7741", "7295"}
    assert fields_of(emulator, AAPL) == quote_fields | {"7283", "7637"}
    for ticks in (plain, rich, more):
        assert set(ticks[-1].extras or {}) == {"implied_vol", "fee_rate"}
    assert list(plain)[-20:] == list(more)[-20:]
    # What traded is counted once, and nothing of it is lost by asking for more.
    volumes = [tick.volume or 0.0 for tick in plain]
    assert sum(tick.traded for tick in plain) == pytest.approx(volumes[-1] - volumes[0])
    used = client.connection.metrics().lines
    assert (used.used, used.limit) == (1, 100)


def test_a_rich_stream_tells_the_same_as_a_plain_one(start_emulator: StartEmulator, connect: Connect) -> None:
    """Two emulators of one seed: only the further fields differ."""
    told: list[list[Tick]] = []
    for extras in ((), ("day_high", "mark")):
        client = connect(start_emulator(seed=5))
        client.step(30)
        ticks = stream(client, "AAPL", *extras)
        client.until(partial(len, ticks))
        client.step(300)
        told.append(list(ticks))

    def plain(tick: Tick) -> tuple[Any, ...]:
        return (tick.time_ns, tick.bid, tick.ask, tick.last, tick.last_size, tick.volume, tick.quality)

    narrow, wide = told
    assert sum(tick.traded for tick in narrow) == pytest.approx(sum(tick.traded for tick in wide))
    # A tick may come for a further field alone.
    assert {plain(tick) for tick in narrow} <= {plain(tick) for tick in wide}


def test_options_have_greeks(start_emulator: StartEmulator, connect: Connect) -> None:
    client = connect(start_emulator())
    client.step()
    http = client.connection._brokerage.session.http  # type: ignore[union-attr]
    loop = client.connection._loop
    assert loop is not None

    async def find() -> int:
        found = (await http.get("/iserver/secdef/search", {"symbol": "AAPL"}))[0]
        months = next(one["months"] for one in found["sections"] if one["secType"] == "OPT").split(";")
        where = {"conid": str(AAPL), "sectype": "OPT", "month": months[1], "exchange": "SMART"}
        strikes = (await http.get("/iserver/secdef/strikes", where))["call"]
        strike = strikes[len(strikes) // 2]
        (row,) = await http.get("/iserver/secdef/info", where | {"strike": str(strike), "right": "C"})
        return int(row["conid"])

    option = loop.call(find(), 10)
    ticks = stream(
        client, f"conid:{option}", "delta", "gamma", "theta", "vega", "implied_vol", "open_interest"
    )
    client.until(lambda: ticks and ticks[-1].extras)
    extras = ticks[-1].extras
    assert extras is not None
    assert set(extras) == {"delta", "gamma", "theta", "vega", "implied_vol", "open_interest"}
    assert 0 < extras["delta"] < 1


def test_wrong_extras_are_refused(emulator: EmulatorThread, connect: Connect) -> None:
    client = connect()
    with pytest.raises(UsageError, match=r"'beauty'.*Lines: .*vwap"):
        stream(client, "AAPL", "beauty")
    assert client.connection.metrics().lines.used == 0


def test_further_fields_survive_a_break(emulator: EmulatorThread, connect: Connect) -> None:
    client = connect()
    client.step()
    ticks = stream(client, "AAPL", "fee_rate")
    client.until(lambda: ticks)
    before = len(ticks)
    cut(emulator)
    client.until(lambda: len(ticks) > before)
    assert ticks[-1].extras == {"fee_rate": pytest.approx(ticks[0].extras["fee_rate"])}  # type: ignore[index]
    assert ticks[before].traded == 0.0


# --- why something is missing ----------------------------------------------------------------------


def frame(emulator: EmulatorThread, **fields: Any) -> None:
    """A frame of Apple's, as the real server might send it."""
    body = {"topic": f"smd+{AAPL}", "conid": AAPL, "_updated": 1_777_552_110_061}
    body |= {name.lstrip("_"): value for name, value in fields.items()}
    tell(emulator, body)


def test_quotes_tell_why_a_field_is_missing(emulator: EmulatorThread, connect: Connect) -> None:
    client = connect()
    apple = contract(client)
    assert client.connection.quote(apple) is None
    ticks = stream(client, "AAPL", "fee_rate", "delta")
    client.until(lambda: ticks)
    client.settle()
    frame(emulator, _31="C189.30", _84="189.10", _86="", _6509="RpB", _7637="N/A")
    client.until(lambda: ticks and ticks[-1].bid == 189.10)
    quote = client.connection.quote(apple)
    assert quote is not None
    assert (quote.last, quote.prior_close, quote.bid, quote.ask) == (None, 189.30, 189.10, None)
    assert (quote.quality, quote.availability) == (DataQuality.REALTIME, "RpB")
    assert quote.missing["last"] is Missing.NO_TRADE
    assert quote.missing["ask"] is Missing.NO_MARKET
    assert quote.missing["fee_rate"] is Missing.NOT_AVAILABLE
    assert quote.missing["delta"] is Missing.NOT_SENT
    assert quote.missing["bid_size"] is Missing.NOT_SENT
    frame(emulator, _6509="N", _84="N/A")
    client.until(lambda: ticks[-1].quality is DataQuality.NOT_SUBSCRIBED)
    quote = client.connection.quote(apple)
    assert quote is not None
    assert quote.missing["bid"] is Missing.NOT_SUBSCRIBED
    frame(emulator, _6509="RpB", _84="189.0", _86="189.2", _31="189.10")
    client.until(lambda: ticks[-1].last == 189.10)
    quote = client.connection.quote(apple)
    assert quote is not None
    assert not {"bid", "ask", "last"} & set(quote.missing)


# --- lines -----------------------------------------------------------------------------------------


def test_lines_are_counted_shared_and_given_back(start_emulator: StartEmulator, connect: Connect) -> None:
    emulator = start_emulator(synthetic_instruments=FIVE)
    client = connect(emulator, market_data_lines=2)
    one, again = stream(client, "AAPL"), stream(client, "AAPL")
    two = stream(client, "SPY")
    lines = client.connection.metrics().lines
    assert (lines.used, lines.limit, len(lines.names)) == (2, 2, 2)
    with pytest.raises(
        LinesError, match=r"MSFT.*2 of 2.*AAPL.*SPY.*market_data_lines.*lines_overflow"
    ) as refused:
        stream(client, "MSFT")
    assert refused.value.remedy
    assert client.connection.metrics().lines.refused == 1
    # The refused one left nothing behind.
    assert not emulator.call(lambda s: s.core.has_market_data(272093))
    client.connection.unsubscribe_ticks(one)
    with pytest.raises(LinesError):
        stream(client, "MSFT")
    client.connection.unsubscribe_ticks(again)
    third = stream(client, "MSFT")
    client.step(50)
    client.until(lambda: third and two)
    client.until(lambda: not emulator.call(lambda s: s.core.has_market_data(AAPL)))


def test_one_exchange_is_a_line_of_its_own(start_emulator: StartEmulator, connect: Connect) -> None:
    client = connect(start_emulator(), market_data_lines=2)
    stream(client, "AAPL")
    stream(client, f"conid:{AAPL}@NASDAQ")
    assert client.connection.metrics().lines.used == 2
    with pytest.raises(LinesError):
        stream(client, f"conid:{AAPL}@ARCA")


def test_a_snapshot_s_line_is_given_back_when_it_is_needed(
    start_emulator: StartEmulator, connect: Connect
) -> None:
    emulator = start_emulator(synthetic_instruments=FIVE, market_data_lines=2)
    client = connect(emulator, market_data_lines=2)
    client.step(50)
    assert client.connection.availability(contract(client, "AAPL")) == "RpB"
    assert client.connection.availability(contract(client, "SPY")) == "RpB"
    assert client.connection.metrics().lines.used == 2
    ticks = stream(client, "MSFT")
    client.step(50)
    client.until(lambda: ticks)
    assert client.connection.metrics().lines.used == 2
    # Of what streams it is read without asking.
    before = asked(emulator, "/iserver/marketdata/snapshot")
    assert client.connection.availability(contract(client, "MSFT")) == "RpB"
    assert asked(emulator, "/iserver/marketdata/snapshot") == before


def test_a_line_that_was_streamed_and_read_is_given_back_whole(
    start_emulator: StartEmulator, connect: Connect
) -> None:
    emulator = start_emulator()
    client = connect(emulator)
    client.step(20)
    client.connection.availability(contract(client))
    ticks = stream(client, "AAPL")
    client.connection.unsubscribe_ticks(ticks)
    client.until(lambda: not emulator.call(lambda s: s.core.has_market_data(AAPL)))
    assert client.connection.metrics().lines.used == 0


def leak(emulator: EmulatorThread, *conids: int) -> None:
    """What a dead process left behind."""
    emulator.call(lambda s: [s.core.snapshots.ask(conid, ("31",)) for conid in conids])


def test_lines_of_a_dead_process_are_given_back_at_the_start(
    start_emulator: StartEmulator, connect: Connect
) -> None:
    """Quirk 29: without it the stream would stay mute."""
    emulator = start_emulator(synthetic_instruments=FIVE, market_data_lines=2)
    leak(emulator, SPY, 272093)
    mute = connect(emulator, clear_lines="never")
    ticks = stream(mute, "AAPL")
    mute.step(50)
    assert not ticks
    mute.connection.close()
    leak(emulator, SPY, 272093)
    client = connect(emulator)
    assert asked(emulator, "/iserver/marketdata/unsubscribeall") == 1
    ticks = stream(client, "AAPL")
    client.step(50)
    client.until(lambda: ticks)


def test_lines_of_another_process_of_ours_are_left_alone(
    start_emulator: StartEmulator, connect: Connect
) -> None:
    emulator = start_emulator(synthetic_instruments=FIVE)
    path = "/iserver/marketdata/unsubscribeall"
    first = connect(emulator)
    assert asked(emulator, path) == 1
    ticks = stream(first, "AAPL")
    first.step(20)
    first.connection.availability(contract(first, "SPY"))
    second = connect(emulator)
    other = stream(second, "MSFT")
    second.connection.availability(contract(second, "IBM"))
    assert asked(emulator, path) == 1
    second.step(20)
    second.until(lambda: other)
    # The second ends its own streams only; to end what a snapshot opened might end a stream of the first.
    second.connection.availability(contract(second, "AAPL"))
    second.connection.close()
    assert asked(emulator, path) == 1
    assert asked(emulator, "/iserver/marketdata/unsubscribe") == 0
    assert emulator.call(lambda s: s.core.hub.market_data_conids) == {AAPL}
    before = len(ticks)
    first.step(50)
    assert len(ticks) > before
    # The last one gives everything back.
    first.connection.close()
    assert asked(emulator, path) == 2
    assert not emulator.call(lambda s: s.core.snapshots.conids | s.core.hub.market_data_conids)


def test_lines_that_are_not_ours_to_end_are_not_taken(
    start_emulator: StartEmulator, connect: Connect
) -> None:
    emulator = start_emulator(synthetic_instruments=FIVE)
    connect(emulator)
    client = connect(emulator, market_data_lines=1)
    client.step(20)
    client.connection.availability(contract(client, "SPY"))
    with pytest.raises(LinesError, match="1 of 1"):
        stream(client, "MSFT")
    with pytest.raises(LinesError):
        client.connection.availability(contract(client, "MSFT"))
    assert client.connection.metrics().lines.refused == 2
    assert stream(client, "SPY") is not None


def test_always_gives_everything_back(start_emulator: StartEmulator, connect: Connect) -> None:
    emulator = start_emulator()
    connect(emulator)
    connect(emulator, clear_lines="always")
    assert asked(emulator, "/iserver/marketdata/unsubscribeall") == 2


def test_where_nothing_can_be_locked_nothing_is_cleared(
    start_emulator: StartEmulator, connect: Connect, home: Path
) -> None:
    (home / "logins").write_text("a file where a folder should be")
    emulator = start_emulator()
    connect(emulator)
    assert asked(emulator, "/iserver/marketdata/unsubscribeall") == 0


def test_beyond_the_lines_snapshots_are_read_in_turn(start_emulator: StartEmulator, connect: Connect) -> None:
    emulator = start_emulator(synthetic_instruments=FIVE, market_data_lines=2)
    client = connect(emulator, market_data_lines=2, lines_overflow="snapshots")
    client.connection._brokerage.market_data._round._pause = _soon  # type: ignore[union-attr]
    client.step(100)
    live = stream(client, "AAPL")
    late = {name: stream(client, name, "day_high") for name in ("SPY", "MSFT", "IBM")}
    client.until(lambda: live and all(len(ticks) for ticks in late.values()))
    lines = client.connection.metrics().lines
    assert (lines.used, lines.polled) == (2, 3)
    assert not live[-1].snapshot
    for ticks in late.values():
        assert ticks[-1].snapshot
        assert ticks[-1].bid is not None
        assert "day_high" in (ticks[-1].extras or {})
    quote = client.connection.quote(contract(client, "IBM"))
    assert quote is not None
    assert quote.snapshot
    counts = {name: len(ticks) for name, ticks in late.items()}
    client.step(2000)
    client.until(lambda: all(len(ticks) > counts[name] for name, ticks in late.items()))
    for ticks in late.values():
        volumes = [tick.volume or 0.0 for tick in ticks]
        assert sum(tick.traded for tick in ticks) == pytest.approx(volumes[-1] - volumes[0])
    # Never more lines than there are.
    assert emulator.call(lambda s: len(s.core.snapshots.conids | s.core.hub.market_data_conids)) <= 2
    # A line becomes free: who waits longest streams from now on.
    client.connection.unsubscribe_ticks(live)
    count = len(late["SPY"])
    client.step(200)
    client.until(lambda: len(late["SPY"]) > count and not late["SPY"][-1].snapshot)
    lines = client.connection.metrics().lines
    assert (lines.used, lines.polled) == (2, 2)
    for ticks in late.values():
        client.connection.unsubscribe_ticks(ticks)
    client.until(lambda: not emulator.call(lambda s: s.core.snapshots.conids | s.core.hub.market_data_conids))


def test_snapshots_go_on_after_errors(start_emulator: StartEmulator, connect: Connect) -> None:
    emulator = start_emulator(synthetic_instruments=FIVE, market_data_lines=2)
    client = connect(emulator, market_data_lines=2, lines_overflow="snapshots")
    client.connection._brokerage.market_data._round._pause = _soon  # type: ignore[union-attr]
    client.step(100)
    emulator.fault("http", action="status", status=503, path="/iserver/marketdata/snapshot", count=3)
    stream(client, "AAPL")
    late = stream(client, "SPY")
    client.until(lambda: late)
    assert asked(emulator, "/iserver/marketdata/snapshot") > 3
    assert emulator.do("faults")["faults"] == []
    assert late[-1].bid is not None


async def _soon(_: float) -> None:
    await asyncio.sleep(0.002)


# --- depth -----------------------------------------------------------------------------------------


def ladder(client: Client, name: str = "AAPL") -> Mailbox[DepthBook]:
    books: Mailbox[DepthBook] = Mailbox(WakeUp())
    client.connection.subscribe_depth(contract(client, name), ACCOUNT, books)
    return books


def newest(client: Client, books: Mailbox[DepthBook]) -> DepthBook:
    client.until(lambda: len(books))
    book = None
    while (came := books.take()) is not None:
        book = came
    assert book is not None
    return book


def test_depth(start_emulator: StartEmulator, connect: Connect) -> None:
    emulator = start_emulator(synthetic_instruments=FIVE)
    client = connect(emulator)
    client.step(50)
    books = ladder(client)
    book = newest(client, books)
    quote = emulator.call(lambda s: s.core.engine.quote(AAPL))
    assert quote is not None
    assert (book.bids[0].price, book.asks[0].price) == (quote.bid, quote.ask)
    assert len(book.bids) == len(book.asks) == 10
    assert [one.price for one in book.bids] == sorted((one.price for one in book.bids), reverse=True)
    client.step(500)
    book = newest(client, books)
    client.until(lambda: not len(books))
    again = ladder(client)
    assert len(again) == 1
    with pytest.raises(DepthError, match=r"DU1234567.*AAPL.*SPY"):
        ladder(client, "SPY")
    client.connection.unsubscribe_depth(books)
    client.connection.unsubscribe_depth(again)
    ladder(client, "SPY")
    client.step(500)
    assert not len(books)


def test_depth_comes_back_after_a_break(start_emulator: StartEmulator, connect: Connect) -> None:
    emulator = start_emulator()
    client = connect(emulator)
    client.step(50)
    books = ladder(client)
    newest(client, books)
    cut(emulator)
    client.until(lambda: client.states().count("streaming") == 2)
    client.step(500)
    assert newest(client, books).bids


def test_depth_frames_that_cannot_be_read_are_passed_over(
    start_emulator: StartEmulator, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    emulator = start_emulator()
    client = connect(emulator)
    client.step(50)
    books = ladder(client)
    newest(client, books)
    body = {"topic": f"sbd+{ACCOUNT}+{AAPL}", "data": [{"row": 0, "price": "dear"}]}
    tell(emulator, body)
    client.settle()
    assert not len(books)
    assert "depth-unreadable" in caplog.text


# --- scanner ---------------------------------------------------------------------------------------


def test_scan(start_emulator: StartEmulator, connect: Connect) -> None:
    emulator = start_emulator(synthetic_instruments=FIVE)
    client = connect(emulator)
    client.step(300)
    rows = client.connection.scan(ScanRequest(scan_type="MOST_ACTIVE"))
    assert [row.rank for row in rows] == list(range(1, len(rows) + 1))
    assert {row.symbol for row in rows} == {"AAPL", "SPY", "MSFT", "IBM"}
    best = client.connection.resolve(parse_dataname(rows[0].dataname))
    assert best.conid == rows[0].conid
    assert len(client.connection.scan(ScanRequest(scan_type="MOST_ACTIVE", most=2))) == 2
    with pytest.raises(UsageError, match=r"no scan type 'MOST_ACTIV'.*Did you mean MOST_ACTIVE"):
        client.connection.scan(ScanRequest(scan_type="MOST_ACTIV"))
    with pytest.raises(UsageError, match=r"no filter 'priceabove'.*priceAbove"):
        client.connection.scan(ScanRequest(scan_type="MOST_ACTIVE", filters=(("priceabove", 5.0),)))
    with pytest.raises(UsageError, match="51 rows"):
        client.connection.scan(ScanRequest(scan_type="MOST_ACTIVE", most=51))
    # The codes are read once: IBKR tells them once in 15 minutes.
    assert client.connection.scanner_parameters().types
    assert asked(emulator, "/iserver/scanner/params") == 1
