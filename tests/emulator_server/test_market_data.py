"""Further fields, the budget of lines, late and frozen data, ladders and scans, as a client sees them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bt_ibkr.emulator.market import pricing
from bt_ibkr.emulator.market.greeks import greeks

ACCOUNT = "DU1234567"
AAPL, SPY = 265598, 756733


async def snapshot(api: Any, *conids: int, fields: str = "31,84,86") -> list[dict[str, Any]]:
    query = {"conids": ",".join(map(str, conids)), "fields": fields}
    await api.get("/iserver/marketdata/snapshot", **query)
    rows: list[dict[str, Any]] = await api.get("/iserver/marketdata/snapshot", **query)
    return rows


async def subscribe(socket: Any, conid: int = AAPL, fields: str = '"31","84","86"') -> list[dict[str, Any]]:
    await socket.send(f'smd+{conid}+{{"fields":[{fields}]}}')
    frames: list[dict[str, Any]] = await socket.flush()
    return frames


# --- further fields --------------------------------------------------------------------------------


async def test_a_stock_tells_what_can_be_borrowed_and_its_volatility(make: Any) -> None:
    api = await make()
    await api.step(max_events=20)
    (row,) = await snapshot(api, AAPL, fields="7636,7637,7644,7283,7087,7638,7308")
    assert row["7636"][-1] == "M"
    assert row["7637"][-1] == row["7283"][-1] == row["7087"][-1] == "%"
    assert row["7644"]
    assert "7638" in row
    assert "7308" not in row  # a stock has no greeks


async def test_an_option_has_its_greeks(make: Any) -> None:
    api = await make()
    await api.step(max_events=20)
    await api.get("/iserver/secdef/search", symbol="AAPL")
    months = (await api.get("/iserver/secdef/search", symbol="AAPL"))[0]["sections"]
    month = next(one["months"] for one in months if one["secType"] == "OPT").split(";")[1]
    strikes = await api.get(
        "/iserver/secdef/strikes", conid=str(AAPL), sectype="OPT", month=month, exchange="SMART"
    )
    spot = float((await snapshot(api, AAPL))[0]["31"])
    strike = min(strikes["call"], key=lambda one: abs(one - spot))
    (call,) = await api.get(
        "/iserver/secdef/info",
        conid=str(AAPL), sectype="OPT", month=month, strike=str(strike), right="C", exchange="SMART",
    )  # fmt: skip
    socket = await api.socket()
    frames = await subscribe(socket, call["conid"], '"7308","7309","7310","7311","7633"')
    first = frames[0]
    assert 0.3 < float(first["7308"]) < 0.7  # at the money
    assert float(first["7309"]) > 0
    assert float(first["7310"]) < 0
    assert float(first["7311"]) > 0
    assert first["7633"].endswith("%")


@pytest.mark.parametrize("call", [True, False])
def test_greeks_are_the_slopes_of_the_value(call: bool) -> None:
    """Against differences of the pricing formula itself."""
    price, strike, left, volatility = 100.0, 105.0, 0.3, 0.25

    def worth(p: float = price, t: float = left, v: float = volatility) -> float:
        return pricing.value(p, strike, t, v, call=call)

    found = greeks(price, strike, left, volatility, call=call)
    assert found.delta == pytest.approx((worth(p=price + 0.01) - worth(p=price - 0.01)) / 0.02, abs=1e-5)
    second = (worth(p=price + 0.1) - 2 * worth() + worth(p=price - 0.1)) / 0.01
    assert found.gamma == pytest.approx(second, abs=1e-5)
    day = 1 / 365
    assert found.theta == pytest.approx((worth(t=left - day / 2) - worth(t=left + day / 2)), abs=1e-5)
    assert found.vega == pytest.approx((worth(v=volatility + 0.005) - worth(v=volatility - 0.005)), abs=1e-5)


def test_greeks_at_the_end() -> None:
    assert greeks(110.0, 100.0, 0.0, 0.2, call=True).delta == 1.0
    assert greeks(110.0, 100.0, 0.0, 0.2, call=False).delta == 0.0
    assert all(math.isfinite(one) for one in (greeks(1e-9, 100.0, 1.0, 0.2, call=True).theta,))


async def test_the_position_is_among_the_fields(make: Any) -> None:
    api = await make()
    await api.step(max_events=20)
    fields = "73,74,75,76,79,7920,7921"
    assert not set(fields.split(",")) & set((await snapshot(api, AAPL, fields=fields))[0])
    socket = await api.socket()
    await api.place(quantity=10)
    await api.step(max_events=20)
    (row,) = await snapshot(api, AAPL, fields=fields)
    assert row["76"] == "10"
    assert float(row["73"]) == pytest.approx(
        float(row["74"]) * 10 + float(row["75"]), abs=2.0
    )  # the commission is in the cost
    frames = await subscribe(socket, AAPL, '"76","7920"')
    assert frames[0]["76"] == "10"


# --- lines -----------------------------------------------------------------------------------------


async def test_beyond_the_lines_streams_are_mute_and_snapshots_empty(make: Any) -> None:
    api = await make(market_data_lines=1)
    await api.step(max_events=20)
    socket = await api.socket()
    assert await subscribe(socket, AAPL)
    assert await subscribe(socket, SPY) == []
    (row,) = await snapshot(api, SPY)
    assert row == {"conidEx": str(SPY), "conid": SPY}
    # One that has a line goes on, and may be asked again.
    assert await subscribe(socket, AAPL)
    (row,) = await snapshot(api, AAPL)
    assert "31" in row


async def test_lines_of_snapshots_outlive_their_client(make: Any) -> None:
    """Quirk 29: what a dead process asked for keeps its line until somebody gives it back."""
    api = await make(market_data_lines=1)
    await api.step(max_events=20)
    await snapshot(api, SPY)
    socket = await api.socket()
    assert await subscribe(socket, AAPL) == []
    await api.get("/iserver/marketdata/unsubscribeall")
    assert await subscribe(socket, AAPL)


async def test_a_closed_socket_gives_its_lines_back(make: Any) -> None:
    api = await make(market_data_lines=1)
    await api.step(max_events=20)
    first = await api.socket()
    assert await subscribe(first, AAPL)
    await first.ws.close()
    second = await api.socket()
    for _ in range(50):
        if await subscribe(second, SPY):
            return
    raise AssertionError("the line was never given back")


async def test_unsubscribe_over_rest_ends_the_socket_s_stream(make: Any) -> None:
    api = await make()
    await api.step(max_events=20)
    socket = await api.socket()
    await subscribe(socket, AAPL)
    assert await api.post("/iserver/marketdata/unsubscribe", {"conid": AAPL}) == {"success": True}
    await api.step(max_events=50)
    assert await socket.flush() == []
    assert await subscribe(socket, AAPL)
    assert await api.get("/iserver/marketdata/unsubscribeall") == {"unsubscribed": True}
    await api.step(max_events=50)
    assert await socket.flush() == []


# --- quality ---------------------------------------------------------------------------------------


async def test_qualities_by_setting(make: Any) -> None:
    api = await make(qualities=("DPB", f"{SPY}:i"))
    await api.step(max_events=20)
    one, other = await snapshot(api, AAPL, SPY)
    assert (one["6509"], other["6509"]) == ("DPB", "i")


async def test_delayed_data_are_late(make: Any) -> None:
    """Two emulators of one seed: what one tells now, the other tells a minute later."""
    told: list[list[tuple[int, str]]] = []
    for late in (False, True):
        api = await make()
        await api.step(max_events=200)
        if late:
            await api.control("fault", {"kind": "quality", "code": "DPB", "conid": AAPL, "delay_s": 60.0})
        socket = await api.socket()
        first = await subscribe(socket)
        assert ("31" in first[0]) is not late  # nothing is a minute old yet
        await api.step(until_ns=(await api.control("state"))["now_ns"] + 150 * 10**9)
        frames = [frame for frame in await socket.flush() if "31" in frame]
        told.append([(frame["_updated"], frame["31"]) for frame in frames])
    live, delayed = told
    assert len(delayed) > 10
    # The first two are the picture that a new stream begins with.
    assert {(at - 60_000, price) for at, price in delayed[2:]} <= set(live)
    assert delayed[-1][0] > live[-1][0] - 10_000


async def test_frozen_data_stand_still_and_withheld_ones_are_not_told(make: Any) -> None:
    api = await make()
    await api.step(max_events=50)
    socket = await api.socket()
    await subscribe(socket)
    (before,) = await snapshot(api, AAPL)
    fault = await api.control("fault", {"kind": "quality", "code": "ZB", "conid": AAPL})
    assert [frame["6509"] for frame in await socket.flush()] == ["ZB"]
    await api.step(max_events=200)
    assert await socket.flush() == []
    (after,) = await snapshot(api, AAPL)
    assert (after["31"], after["6509"]) == (before["31"], "ZB")
    await api.control("clear_faults", {"id": fault["id"]})
    await api.step(max_events=50)
    assert any("31" in frame or "84" in frame for frame in await socket.flush())
    await api.control("fault", {"kind": "quality", "code": "N", "conid": AAPL})
    (row,) = await snapshot(api, AAPL)
    assert row["6509"] == "N"
    assert "31" not in row


# --- depth -----------------------------------------------------------------------------------------


async def test_a_ladder_has_the_best_prices_and_our_own_orders(make: Any) -> None:
    api = await make()
    await api.step(max_events=50)
    socket = await api.socket()
    await socket.send(f"sbd+{ACCOUNT}+{AAPL}")
    (frame,) = await socket.flush()
    assert frame["topic"] == f"sbd+{ACCOUNT}+{AAPL}"
    rows = frame["data"]
    assert [row["row"] for row in rows] == list(range(len(rows)))
    prices = [float(row["price"].rpartition("@")[2]) for row in rows]
    assert prices == sorted(prices, reverse=True)
    quote = api.server.core.engine.quote(AAPL)
    bids = [price for price, row in zip(prices, rows, strict=True) if "bid" in row]
    asks = [price for price, row in zip(prices, rows, strict=True) if "ask" in row]
    assert (max(bids), min(asks)) == (quote.bid, quote.ask)
    assert (len(bids), len(asks)) == (10, 10)
    deep = min(bids) - 0.01
    await api.place(orderType="LMT", price=round(deep, 2), quantity=7)
    await api.step(until_ns=(await api.control("state"))["now_ns"] + 5 * 10**9)
    shown = [row for frame in await socket.flush() for row in frame.get("data", ()) if row.get("bid") == "7"]
    assert shown
    assert shown[0]["price"].endswith(f"{deep:.2f}")


async def test_one_ladder_an_account(make: Any) -> None:
    api = await make()
    await api.step(max_events=50)
    socket = await api.socket()
    await socket.send(f"sbd+{ACCOUNT}+{AAPL}")
    await socket.send(f"sbd+{ACCOUNT}+{SPY}")
    await socket.flush()
    now_ns = (await api.control("state"))["now_ns"]
    await api.step(until_ns=now_ns + 5 * 10**9)
    assert {frame["topic"] for frame in await socket.flush()} == {f"sbd+{ACCOUNT}+{SPY}"}
    await socket.send(f"ubd+{ACCOUNT}")
    await api.step(until_ns=now_ns + 10 * 10**9)
    assert await socket.flush() == []
    await socket.send(f"sbd+DU999+{AAPL}")
    assert (await socket.flush())[0]["error"] == "unable to subscribe"


# --- scanner ---------------------------------------------------------------------------------------


async def test_the_scanner_ranks_what_trades(make: Any) -> None:
    api = await make()
    await api.step(max_events=400)
    parameters = await api.get("/iserver/scanner/params")
    assert {"scan_type_list", "instrument_list", "filter_list", "location_tree"} == set(parameters)
    body: dict[str, Any] = {
        "instrument": "STK",
        "location": "STK.US.MAJOR",
        "type": "TOP_PERC_GAIN",
        "filter": [],
    }
    answer = await api.post("/iserver/scanner/run", body)
    rows = answer["contracts"]
    engine = api.server.core.engine
    changes = [engine.quote(row["con_id"]) for row in rows]
    gains = [one.last / one.prior_close for one in changes]
    assert gains == sorted(gains, reverse=True)
    assert {row["con_id"] for row in rows} == {AAPL, SPY}
    # As recorded: the column's name in the first row only, and never the figure.
    assert [row.get("column_name") for row in rows] == ["Chg%", None]
    assert not any("scan_data" in row for row in rows)
    losers = await api.post("/iserver/scanner/run", body | {"type": "TOP_PERC_LOSE"})
    assert [row["con_id"] for row in losers["contracts"]] == [row["con_id"] for row in rows][::-1]
    dear = max(one.last for one in changes)
    body["filter"] = [{"code": "priceAbove", "value": dear - 0.01}]
    (row,) = (await api.post("/iserver/scanner/run", body))["contracts"]
    assert engine.quote(row["con_id"]).last == dear
    assert (await api.ask("POST", "/iserver/scanner/run", body | {"type": "BEST"}))[0] == 400
