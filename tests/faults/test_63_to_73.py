"""Faults 63 to 73: refusals that ask for something, who may log in, and too many requests."""

from __future__ import annotations

import asyncio
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.connection.interface import (
    CancelFailed,
    ExecutionReported,
    HistoryArrived,
    OrderFailed,
    OrderPlaced,
)
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import PacingPenaltyError, RequestTimeoutError, UsageError
from bt_ibkr.model.order import OrderType, Side
from bt_ibkr.services.history import HistoryRequest
from tests.auth.conftest import keys, oauth2, oauth2_login  # noqa: F401 - a fixture
from tests.connection.conftest import key_of

if TYPE_CHECKING:
    from tests.auth.conftest import Keys
    from tests.conftest import Bench, Tape
    from tests.faults.conftest import Bed, MakeBed

STOCKS = "/trsrv/stocks"
MINUTE_NS = 60_000_000_000
END_NS = 1_772_462_040_000_000_000


def get(made: Bed, path: str, **params: str) -> Any:
    return made.on_loop(lambda: made.session.http.get(path, params))


def test_63_please_query_accounts_first(bed: MakeBed) -> None:
    """Asked, and the request repeated; nobody else notices."""
    made = bed()
    made.forget()
    made.fault("accounts_again")
    since = made.asked()
    answer = get(made, "/iserver/marketdata/snapshot", conids="265598", fields="31")
    assert answer
    assert made.count("/iserver/accounts", since) == 1
    assert made.count("/iserver/marketdata/snapshot", since) == 2
    assert made.changes() == []


def test_63_an_order_is_sent_again_once(bed: MakeBed) -> None:
    """Not by the session, which cannot know whether that is safe."""
    made = bed()
    made.attach()
    contract = made.stream()
    made.fault("accounts_again")
    since = made.asked()
    made.buy(contract)
    made.until(lambda: made.of(OrderFailed) or made.of(OrderPlaced))
    # The server had not looked at it: the desk, which knows, sent it again, under the same key.
    assert made.count("/iserver/account/DU1234567/orders", since) == 2
    assert made.count("/iserver/accounts", since) == 1
    (standing,) = made.emulator.call(lambda s: list(s.core.engine.orders()))
    assert standing.spec.client_order_id == key_of(1)
    assert [event.key for event in made.of(OrderPlaced)] == [key_of(1)]


def test_64_no_bridge(bed: MakeBed) -> None:
    """The brokerage session is opened again, once for all who wait."""
    made = bed()
    made.stream()
    made.fault("expire", told=False)
    since = made.asked()

    async def three() -> list[Any]:
        http = made.session.http
        params = {"conids": "265598", "fields": "31"}
        return list(
            await asyncio.gather(*(http.get("/iserver/marketdata/snapshot", params) for _ in range(3)))
        )

    assert all(made.on_loop(three))
    assert made.count("/iserver/auth/ssodh/init", since) == 1


def test_65_gone(bed: MakeBed, keys: Keys) -> None:  # noqa: F811
    """OAuth: 410 means another token; one for all callers."""
    made = bed({"authentication": oauth2(keys)}, login=oauth2_login(keys))
    since = made.asked()
    made.fault("http", action="status", status=410, path=STOCKS, count=4)

    async def four() -> list[Any]:
        http = made.session.http
        return list(await asyncio.gather(*(http.get(STOCKS, {"symbols": "AAPL"}) for _ in range(4))))

    assert all("AAPL" in answer for answer in made.on_loop(four))
    assert made.session.http.generation == 1
    assert made.count(STOCKS, since) == 8
    assert made.states().count("streaming") == 1


def test_66_first_status_is_false(bed: MakeBed) -> None:
    """The first look is wrong: one more look, no new log-in."""
    made = bed(opened=False)
    made.fault("http", action="error", text="not yet", path="/tickle")
    made.open()
    made.until_state("streaming")
    assert made.count("/iserver/auth/status") == 1
    assert made.count("/iserver/auth/ssodh/init") == 0


def test_66_doubted_twice_is_no_loop(bed: MakeBed) -> None:
    """Where status goes on being false, an init settles it: the session is there, and is not competed for."""
    made = bed(opened=False, competing="yield")
    made.fault("http", action="error", text="not yet", path="/tickle")
    made.fault("status_false", count=1)
    made.open()
    made.until_state("streaming")
    assert made.count("/iserver/auth/ssodh/init") == 1


def test_67_wrong_account(bench: Bench, tape: type[Tape]) -> None:
    """Another account than the one that was named: nothing starts, nothing is left."""
    market = bench.market(AAPL=tape().every_second(60, lambda s: 100.0))
    line = bench.line(market=market, accounts=("U7654321",), store={"account": "DU1234567"})
    with pytest.raises(UsageError, match="'DU1234567' is not one of this login's: U7654321"):
        line.store.start()
    assert not [t for t in threading.enumerate() if t.name == "ibkr-session"]


def test_67_the_server_reports_the_kind(bed: MakeBed) -> None:
    """What guards of paper and live go by: the server's word, not the account's name."""
    live = bed({"accounts": ("U7654321",), "paper": "no"})
    assert live.session.accounts.is_paper is False
    paper = bed({"accounts": ("DU1",), "paper": "yes"})
    assert paper.session.accounts.is_paper is True


def test_68_second_factor_pending(bed: MakeBed) -> None:
    """Told and waited for; the pauses keep the tries from locking the user out."""
    made = bed(reconnect_first_s=0.02, reconnect_longest_s=5.0)
    number = made.fault("two_factor", then="ready")
    told = made.until_state("needs a person")
    assert "log in" in told.next_step
    tries = made.hits(number)
    # One attempt asks three times at most; the next one is ten seconds away (a minute with users' settings).
    assert tries <= 3
    made.clear()
    assert made.connection._loop is not None
    made.connection._loop.loop.call_soon_threadsafe(made.session.nudge)
    made.back()
    assert made.states().count("needs a person") == 1


def attached_with_stop(made: Bed) -> None:
    """An account that is long, with a protective stop, the second order, at the broker."""
    made.attach()
    contract = made.stream()
    made.buy(contract, 1)
    made.until(lambda: made.of(OrderPlaced))
    made.step()
    made.buy(contract, 2, side=Side.SELL, order_type=OrderType.STOP, stop_price=1.0, quantity=Decimal(10))
    made.until(lambda: len(made.of(OrderPlaced)) == 2)


def test_69_too_many_requests_once(bed: MakeBed) -> None:
    """A penalty of 15 minutes: told, nothing asked, but a cancellation passes."""
    made = bed()
    attached_with_stop(made)
    since = made.asked()
    made.fault("http", action="status", status=429, path=STOCKS)
    with pytest.raises(PacingPenaltyError):
        get(made, STOCKS, symbols="AAPL")
    told = made.until_state("penalty")
    assert told.connected
    assert "900 s" in told.next_step
    assert 890 < made.session.pacing().penalty_s <= 900
    for _ in range(20):
        with pytest.raises(PacingPenaltyError, match="Not sent"):
            get(made, STOCKS, symbols="AAPL")
    assert made.count(STOCKS, since) == 1
    made.connection.cancel(key_of(2), made.mailbox)
    made.until(lambda: not made.connection.in_flight())
    assert not made.of(CancelFailed)
    assert [row["method"] for row in made.requests(since)] == ["GET", "DELETE"]


def test_69_the_penalty_ends_by_itself(bed: MakeBed) -> None:
    made = bed(penalty_s=0.2)
    made.fault("http", action="status", status=429, path=STOCKS)
    with pytest.raises(PacingPenaltyError):
        get(made, STOCKS, symbols="AAPL")
    made.until_state("streaming", 2)
    assert made.states()[-2:] == ["penalty", "streaming"]
    assert made.gaps() == []
    assert get(made, STOCKS, symbols="AAPL")


def test_69_a_break_within_the_penalty(bed: MakeBed) -> None:
    """No attempt to come back before the penalty is over; nobody is told that the stream goes on."""
    made = bed(penalty_s=1.0)
    made.stream()
    made.fault("http", action="status", status=429, path=STOCKS)
    with pytest.raises(PacingPenaltyError):
        get(made, STOCKS, symbols="AAPL")
    made.until_state("penalty")
    since = made.asked()
    made.fault("ws_reset")
    made.until_state("disconnected")
    began = made.session.pacing().penalty_s
    assert began > 0
    told = made.until_state("penalty", 2)
    assert not told.connected
    assert "nothing is tried" in told.next_step
    gap = made.back()
    assert made.session.pacing().penalty_s == 0
    assert made.requests(since)[0]["path"] == "/tickle"
    assert (gap.end_ns - gap.start_ns) / 1e9 >= began * 0.9


def test_69_the_upgrade_is_refused(bed: MakeBed) -> None:
    """A 429 is one wherever it is met: no second upgrade is tried before the penalty is over."""
    made = bed(penalty_s=1.0)
    made.fault("http", action="status", status=429, path="/ws")
    since = made.asked()
    made.fault("ws_reset")
    told = made.until_state("penalty")
    assert not told.connected
    assert made.session.pacing().penalty_s > 0
    upgrades = made.count("/ws", since)
    assert upgrades == 1
    assert made.session.pacing().penalties == 1
    asked = made.asked()
    made.back()
    assert made.count("/ws", since) == 2
    assert made.requests(asked)[0]["path"] == "/tickle"


def test_70_unknown_path(bed: MakeBed) -> None:
    """The whole client holds still, not only that path."""
    made = bed()
    since = made.asked()
    made.fault("http", action="status", status=429, path="/never/heard/of")
    with pytest.raises(PacingPenaltyError):
        get(made, "/never/heard/of")
    for path in (STOCKS, "/portfolio/accounts", "/iserver/accounts"):
        with pytest.raises(PacingPenaltyError, match="Not sent"):
            get(made, path)
    assert len(made.requests(since)) == 1


def test_71_penalty_while_holding(bed: MakeBed) -> None:
    """The stop rests at the broker and works while REST is punished; the fill comes through the stream."""
    made = bed()
    attached_with_stop(made)
    made.fault("http", action="status", status=429, path=STOCKS)
    with pytest.raises(PacingPenaltyError):
        get(made, STOCKS, symbols="AAPL")
    made.until_state("penalty")
    before = len(made.ticks)
    made.control.post("/tick", {"conid": 265598, "bid": 0.5, "ask": 0.6, "last": 0.5, "last_size": 500})
    made.step()
    made.until(lambda: len(made.ticks) > before)
    made.until(lambda: any(e.execution.side is Side.SELL for e in made.of(ExecutionReported)))
    assert "disconnected" not in made.states()


@pytest.mark.timeout(60)
def test_72_a_hundred_contracts_at_once(bed: MakeBed) -> None:
    """All want to start at the same time: paced, without one refusal."""
    made = bed({"pacing": "strict"}, paced=True)

    async def burst() -> list[Any]:
        http = made.session.http
        return list(
            await asyncio.gather(*(http.get("/trsrv/secdef", {"conids": "265598"}) for _ in range(100)))
        )

    began = time.monotonic()
    assert len(made.on_loop(burst)) == 100
    assert time.monotonic() - began < 15.0
    record = made.control.get("/requests")
    assert record["refused"] == 0
    assert [row for row in record["windows"] if row["most"] > row["count"]] == []
    assert made.session.pacing().longest_wait_s > 5.0
    assert "penalty" not in made.states()


def test_73_slow_server(bed: MakeBed) -> None:
    """Answers of half a minute: deadlines are kept, tickles and the stream go on."""
    made = bed(request_timeout_s=0.5, tickle_interval_s=0.05)
    contract = made.stream()
    made.fault("slow", delay_s=30.0, path="/iserver/marketdata/history")
    since = made.asked()
    answers: Mailbox[Any] = Mailbox(made.wake)
    began = time.monotonic()
    for token in range(8):
        request = HistoryRequest(
            contract=contract, bar_ns=MINUTE_NS, start_ns=END_NS - MINUTE_NS, end_ns=END_NS
        )
        made.connection.request_history(request, token, answers)
    made.moves()
    assert made.connection.in_flight() > 0
    made.until(lambda: made.count("/tickle", since) >= 3)
    made.until(lambda: len(answers) == 8)
    assert time.monotonic() - began < 8.0
    arrived = [answers.take() for _ in range(8)]
    errors = [one.error for one in arrived if isinstance(one, HistoryArrived)]
    assert [type(error) for error in errors] == [RequestTimeoutError] * 8
    assert set(made.states()) <= {"gateway up", "read-only session", "brokerage session", "streaming"}
    made.clear()
