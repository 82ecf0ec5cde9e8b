"""What strategies may see and read: their own books and figures, and the instruments that they were given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import ExecutionReported
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import NotArmedError
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.books import BookView
from bt_ibkr.hub.keys import make_keys
from bt_ibkr.hub.link import HubLink
from bt_ibkr.hub.status import HubStatus
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.model.scanner import ScanRequest
from bt_ibkr.services.chains import ChainRequest
from bt_ibkr.services.history import HistoryRequest
from tests.hub.conftest import ACCOUNT, APPLE, PATIENCE_S, StartHub, Strategy, Ticks, move
from tests.hub.test_link import Nobody

GRANTS = {
    "alpha": Grant(),
    "beta": Grant(),
    "narrow": Grant(instruments=("MSFT",)),
    "elsewhere": Grant(accounts=("DU7654321",)),
    "boss": Grant(admin=True),
    "camera": Grant(trading=False, watch=True),
}


@pytest.fixture
def hub(start_hub: StartHub) -> HubThread:
    return start_hub(strategies=GRANTS, unlisted=False)


@pytest.fixture
def enter(hub: HubThread) -> Iterator[Callable[[str], Strategy]]:
    with contextlib.ExitStack() as stack:

        def one(name: str) -> Strategy:
            strategy = Strategy(hub.endpoint, name)
            stack.callback(strategy.connection.close)
            return strategy.open()

        yield one


# -- books and figures ---------------------------------------------------------------------------------


@pytest.fixture
def trading(hub: HubThread, emulator: EmulatorThread, enter: Callable[[str], Strategy]) -> list[Strategy]:
    """Alpha has bought 10 of Apple, beta sold 4."""
    both = [enter("alpha"), enter("beta")]
    for one, side, size in zip(both, (Side.BUY, Side.SELL), (10, 4), strict=True):
        one.attach()
        one.follow()
        key = one.place(side, size)
        one.until(lambda one=one, key=key: one.placed(key))  # type: ignore[misc]
    both[1].follow("MSFT")
    for one, size in zip(both, (10, 4), strict=True):
        while sum(event.execution.quantity for event in one.of(ExecutionReported)) < size:
            move(emulator, 20)
            one.wake.wait(0.05)
    return both


def look(hub: HubThread, name: str, role: str = "observer", **options: Any) -> HubStatus:
    link = HubLink(hub.endpoint, name, Nobody(), role=role, **options)
    try:
        link.open(PATIENCE_S)
        status: HubStatus = link.call("status", timeout_s=PATIENCE_S)
        return status
    finally:
        link.close()


def held(books: tuple[BookView, ...]) -> dict[str, Decimal]:
    return {book.name: one.quantity for book in books for one in book.holdings if one.conid == APPLE}


def totals(status: HubStatus) -> list[tuple[str, int, Decimal]]:
    return [(one.account, one.conid, one.quantity) for one in status.totals]


def test_a_strategy_sees_its_own(trading: list[Strategy]) -> None:
    _, beta = trading
    status: HubStatus = beta.connection._call("status")
    assert status.viewer == "beta"
    assert held(status.books) == {"beta": Decimal(-4)}
    assert totals(status) == [(ACCOUNT, APPLE, Decimal(6))]
    assert [one.name for one in status.peers] == ["beta"]
    assert {one.subscribers for one in status.topics} == {("beta",)}
    assert len(status.topics) == 2
    assert held(beta.connection._call("books")) == {"beta": Decimal(-4)}


def test_what_others_stream_is_not_told(trading: list[Strategy]) -> None:
    alpha, _ = trading
    for lines in (alpha.connection._call("status").session.lines, alpha.connection.metrics().lines):
        assert lines.used == 2
        assert len(lines.names) == 1
    assert [one.subscribers for one in alpha.connection._call("status").topics] == [("alpha",)]


@pytest.mark.parametrize(
    ("name", "role"),
    [("anybody", "observer"), ("boss", "strategy"), ("boss", "observer"), ("camera", "observer")],
)
def test_who_sees_all(hub: HubThread, trading: list[Strategy], name: str, role: str) -> None:
    """Administrators, those told to watch, and on a hub without keys, where a name is but a word, whoever looks."""
    status = look(hub, name, role)
    assert status.viewer == ""
    assert held(status.books) == {"alpha": Decimal(10), "beta": Decimal(-4)}
    assert {"alpha", "beta"} <= {one.name for one in status.peers}
    assert len(status.session.lines.names) == 2


def test_who_looks_under_a_strategy_s_name_sees_what_it_sees(hub: HubThread, trading: list[Strategy]) -> None:
    status = look(hub, "alpha")
    assert held(status.books) == {"alpha": Decimal(10)}
    assert [(one.name, one.role) for one in status.peers] == [("alpha", "strategy"), ("alpha", "observer")]


def test_totals_obey_accounts_and_instruments(hub: HubThread, trading: list[Strategy]) -> None:
    for name in ("narrow", "elsewhere"):
        status = look(hub, name)
        assert (status.books, totals(status), status.names) == ((), [], {})
    assert look(hub, "elsewhere").accounts == ()


def test_an_observer_s_key_says_whose_book_it_sees(start_hub: StartHub, emulator: EmulatorThread) -> None:
    own = make_keys()
    alpha, camera = make_keys(own.public), make_keys(own.public)
    hub = start_hub(
        endpoint="tcp://127.0.0.1:0",
        secret_key=own.secret,
        strategies={"alpha": Grant(key=alpha.public), "camera": Grant(key=camera.public, watch=True)},
    )
    strategy = Strategy(hub.endpoint, "alpha", keys=alpha).open()
    try:
        strategy.attach()
        for keys, viewer in ((alpha, "alpha"), (camera, "")):
            status = look(hub, "observer", keys=keys)
            assert status.viewer == viewer
            assert "alpha" in [one.name for one in status.peers]
    finally:
        strategy.connection.close()


# -- instruments ---------------------------------------------------------------------------------------


def history(strategy: Strategy, contract: Contract) -> None:
    now_ns = strategy.connection.clock.now_ns()
    request = HistoryRequest(
        contract=contract, bar_ns=60 * NS_PER_S, start_ns=now_ns - 3600 * NS_PER_S, end_ns=now_ns
    )
    strategy.connection._call("history", request)


def preview(strategy: Strategy, contract: Contract) -> None:
    strategy.connection.what_if(
        OrderTicket(
            account=ACCOUNT,
            contract_id=contract.conid,
            side=Side.BUY,
            order_type=OrderType.MARKET,
            quantity=Decimal(1),
        )
    )


READS: dict[str, Callable[[Strategy, Contract], Any]] = {
    "availability": lambda one, contract: one.connection.availability(contract),
    "contract-rules": lambda one, contract: one.connection.contract_rules(contract),
    "schedule": lambda one, contract: one.connection.schedule(contract),
    "quote": lambda one, contract: one.connection.quote(contract),
    "subscribe": lambda one, contract: one.connection.subscribe_ticks(contract, Ticks()),
    "history": history,
    "what-if": preview,
}


@pytest.mark.parametrize("kind", READS)
def test_reads_obey_the_instruments(hub: HubThread, enter: Callable[[str], Strategy], kind: str) -> None:
    """By the hub's own knowledge of the conid, not by the words that a request comes with."""
    apple = enter("alpha").contract("AAPL")
    narrow = enter("narrow")
    microsoft = narrow.contract("MSFT")
    READS[kind](narrow, microsoft)
    forged = msgspec.structs.replace(apple, symbol="MSFT")
    for contract in (apple, forged):
        with pytest.raises(NotArmedError, match="may not use AAPL"):
            READS[kind](narrow, contract)
    assert hub.status().harm.unauthorised == 2


@pytest.mark.parametrize("kind", ["availability", "schedule", "what-if"])
def test_what_nobody_has_looked_up_is_looked_up(enter: Callable[[str], Strategy], kind: str) -> None:
    """As after a hub was restarted: a strategy knows contracts that the hub has not seen yet."""
    narrow = enter("narrow")
    microsoft = Contract(conid=272093, symbol="MSFT", security_type=SecurityType.STOCK, currency="USD")
    apple = msgspec.structs.replace(microsoft, conid=APPLE)
    READS[kind](narrow, microsoft)
    with pytest.raises(NotArmedError, match="may not use AAPL"):
        READS[kind](narrow, apple)


def test_scans_and_chains_leave_out_what_it_may_not_use(enter: Callable[[str], Strategy]) -> None:
    alpha, narrow = enter("alpha"), enter("narrow")
    request = ScanRequest(scan_type="MOST_ACTIVE")
    assert {"AAPL", "MSFT"} <= {row.symbol for row in alpha.connection.scan(request)}
    assert {row.symbol for row in narrow.connection.scan(request)} == {"MSFT"}
    chain = ChainRequest(underlying=alpha.contract("AAPL"), around=1)
    assert alpha.connection.chain(chain)
    assert narrow.connection.chain(chain) == ()


def test_a_combo_is_as_good_as_its_worst_leg(enter: Callable[[str], Strategy]) -> None:
    narrow = enter("narrow")
    with pytest.raises(NotArmedError, match="may not use AAPL"):
        narrow.contract("COMBO:MSFT,AAPL*-1")
