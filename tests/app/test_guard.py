"""No order leaves for an account of the other kind, or for real money that nobody confirmed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import backtrader as bt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.app.control import ControlClient
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.guard import AccountGuard, AccountKind, Standing
from bt_ibkr.emulator.services.session import bodies
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import NotArmedError, SessionError, UsageError
from bt_ibkr.store import IBKRStore

PAPER = ("DU1111111", "DU2222222")
LIVE = ("U1111111", "U2222222")
Emulate = Callable[..., EmulatorThread]


@pytest.fixture
def emulate() -> Iterator[Emulate]:
    with ExitStack() as stack:

        def start(accounts: tuple[str, ...], **settings: Any) -> EmulatorThread:
            plain: dict[str, Any] = {
                "accounts": accounts,
                "speed": "lockstep",
                "pacing": "off",
                "synthetic_instruments": ("AAPL",),
                "history_days": 0,
            }
            return stack.enter_context(EmulatorThread(EmulatorSettings(**(plain | settings))))

        yield start


def store_on(emulator: EmulatorThread, **arming: Any) -> IBKRStore:
    return IBKRStore(settings=SessionSettings(base_url=emulator.url, paced=False), **arming)


REFUSED: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, Any], str]] = {
    "paper on a live account": (LIVE, {}, {"mode": "paper"}, "is a live account"),
    "paper on a named live account": (LIVE, {}, {"mode": "paper", "account": LIVE[1]}, "is a live account"),
    "paper on what IBKR does not call paper": (PAPER, {"paper": "no"}, {"mode": "paper"}, "contradicts"),
    "paper on a live id that is called paper": (LIVE, {"paper": "yes"}, {"mode": "paper"}, "contradicts"),
    "live on a paper account": (
        PAPER, {}, {"mode": "live", "confirm_account": PAPER[0]}, "is a paper account",
    ),
    "live on a live id that is called paper": (
        LIVE, {"paper": "yes"}, {"mode": "live", "confirm_account": LIVE[0]}, "contradicts",
    ),
    "live on an account of somebody else": (
        LIVE, {}, {"mode": "live", "confirm_account": "U9999999"}, "not one of this login's",
    ),
    "live on one account, confirmed for another": (
        LIVE, {}, {"mode": "live", "account": LIVE[0], "confirm_account": LIVE[1]}, "was confirmed",
    ),
    "an account that the login does not have": (
        PAPER, {}, {"mode": "paper", "account": "DU9999999"}, "not one of this login's",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_when_the_store_starts(emulate: Emulate, case: str) -> None:
    accounts, settings, arming, says = REFUSED[case]
    emulator = emulate(accounts, **settings)
    store = store_on(emulator, **arming)
    with pytest.raises(UsageError) as caught:
        store.start()
    assert says in caught.value.message
    assert caught.value.remedy
    with pytest.raises(SessionError):
        _ = store.account


ADMITTED: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "paper": (PAPER, {"mode": "paper"}, PAPER[0]),
    "paper, the second account": (PAPER, {"mode": "paper", "account": PAPER[1]}, PAPER[1]),
    "live": (LIVE, {"mode": "live", "account": LIVE[0], "confirm_account": LIVE[0]}, LIVE[0]),
    "live, named by its confirmation": (LIVE, {"mode": "live", "confirm_account": LIVE[1]}, LIVE[1]),
    "no mode": (PAPER, {}, PAPER[0]),
}


@pytest.mark.parametrize("case", ADMITTED)
def test_admitted(emulate: Emulate, case: str) -> None:
    accounts, arming, account = ADMITTED[case]
    with store_on(emulate(accounts), **arming) as store:
        store.start()
        store.getbroker().start()
        assert store.account == account


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing of paper."""
    whole = bodies.accounts
    monkeypatch.setattr(
        bodies, "accounts", lambda core: {k: v for k, v in whole(core).items() if k != "isPaper"}
    )


@pytest.mark.usefixtures("untold")
@pytest.mark.parametrize("arming", [{"mode": "paper"}, {"mode": "live", "confirm_account": PAPER[0]}])
def test_an_id_alone_makes_no_paper_account(emulate: Emulate, arming: dict[str, Any]) -> None:
    """Paper is what IBKR reports as such; that an id begins with D is no report."""
    with pytest.raises(NotArmedError, match="not reported as paper") as caught:
        store_on(emulate(PAPER), **arming).start()
    assert caught.value.remedy


@pytest.mark.usefixtures("untold")
def test_without_a_mode_and_a_word_on_paper_there_is_no_broker(emulate: Emulate) -> None:
    with store_on(emulate(PAPER)) as store:
        store.start()
        with pytest.raises(NotArmedError, match="not reported as paper"):
            store.getbroker().start()


@pytest.mark.usefixtures("untold")
def test_real_money_needs_no_word_on_paper(emulate: Emulate) -> None:
    """An id of real money is one: nobody loses by taking it seriously, and it was confirmed."""
    with store_on(emulate(LIVE), mode="live", confirm_account=LIVE[0]) as store:
        store.start()
        assert store.account == LIVE[0]


def test_without_a_mode_a_live_account_shows_data_but_takes_no_broker(emulate: Emulate) -> None:
    with store_on(emulate(LIVE)) as store:
        store.start()
        assert store.account == LIVE[0]
        with pytest.raises(NotArmedError, match="not armed for real money"):
            store.getbroker().start()


@pytest.mark.parametrize(
    ("accounts", "arming", "says"),
    [
        (PAPER, {"mode": "paper"}, f"trading mode=paper account={PAPER[0]} kind=paper"),
        (
            LIVE,
            {"mode": "live", "confirm_account": LIVE[1]},
            f"trading mode=live account={LIVE[1]} kind=live",
        ),
    ],
)
def test_in_python_the_banner_is_in_the_log(
    emulate: Emulate,
    caplog: pytest.LogCaptureFixture,
    accounts: tuple[str, ...],
    arming: dict[str, Any],
    says: str,
) -> None:
    """Account, mode, connection and data quality, before the broker is attached."""
    emulator = emulate(accounts)
    emulator.fault("quality", code="DPB")
    with store_on(emulator, **arming) as store:
        feed = store.getdata(dataname="AAPL", timeframe=bt.TimeFrame.Minutes)
        store.register(feed)
        store.start()
        (told,) = [one for one in caplog.records if one.getMessage().startswith("trading ")]
        assert told.levelname == "WARNING"
        message = told.getMessage()
        assert message.startswith(says)
        assert f"connection={emulator.url} (gateway)" in message
        assert "AAPL: delayed" in message
        # Nothing of an order has been asked yet.
        with contextlib.closing(ControlClient(emulator.control)) as control:
            asked = [row["path"] for row in control.get("/requests")["requests"]]
        assert not [path for path in asked if path.endswith("/orders")]


def test_a_refused_cerebro_sends_no_order(emulate: Emulate) -> None:
    emulator = emulate(LIVE)
    store = store_on(emulator, mode="paper")
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(store.getdata(dataname="AAPL", timeframe=bt.TimeFrame.Minutes))
    cerebro.setbroker(store.getbroker())
    with store, pytest.raises(NotArmedError):
        cerebro.run()
    with contextlib.closing(ControlClient(emulator.control)) as control:
        asked = [row["path"] for row in control.get("/requests")["requests"]]
    assert "/iserver/accounts" in asked
    assert not [path for path in asked if path.endswith("/orders")]
    assert emulator.call(lambda server: server.core.engine.ledger())["orders"] == []


@pytest.mark.parametrize(
    ("arming", "error", "says"),
    [
        ({"mode": "live"}, NotArmedError, "no account was named"),
        ({"mode": "live", "account": LIVE[0]}, NotArmedError, "nobody confirmed"),
        ({"mode": "paper", "confirm_account": PAPER[0]}, UsageError, "not live"),
        ({"confirm_account": LIVE[0]}, UsageError, "not live"),
        ({"mode": "dream"}, UsageError, "'dream'"),
        ({"guard": AccountGuard(), "mode": "paper"}, UsageError, "beside"),
    ],
)
def test_refused_before_anything_is_opened(
    arming: dict[str, Any], error: type[UsageError], says: str
) -> None:
    with pytest.raises(error) as caught:
        IBKRStore(gateway="http://127.0.0.1:9/v1/api", **arming)
    assert says in caught.value.message
    assert caught.value.remedy


def standing(account: str, is_paper: bool | None, accounts: tuple[str, ...] = ()) -> Standing:
    return Standing(accounts=accounts or (account,), account=account, is_paper=is_paper)


@pytest.mark.parametrize(
    ("account", "is_paper", "kind"),
    [
        ("DU1", True, AccountKind.PAPER),
        ("DF1", True, AccountKind.PAPER),
        ("DU1", None, AccountKind.UNCLEAR),
        ("DF1", None, AccountKind.UNCLEAR),
        ("DU1", False, AccountKind.UNCLEAR),
        ("U1", False, AccountKind.LIVE),
        ("F1", False, AccountKind.LIVE),
        ("U1", None, AccountKind.LIVE),
        ("U1", True, AccountKind.UNCLEAR),
    ],
)
def test_kind_by_both_signs(account: str, is_paper: bool | None, kind: AccountKind) -> None:
    assert standing(account, is_paper).kind is kind


ACCOUNTS = st.sampled_from(["DU1", "DF2", "U1", "F2", "U1234567"])


@given(account=ACCOUNTS, is_paper=st.sampled_from([None, True, False]), typed=st.one_of(ACCOUNTS, st.text()))
def test_live_passes_only_a_live_account_that_was_typed(
    account: str, is_paper: bool | None, typed: str
) -> None:
    guard = AccountGuard("live", account=account, ask=lambda _: typed + "\n")
    try:
        guard.admit(standing(account, is_paper))
    except NotArmedError:
        assert guard.passed is None
        return
    assert not account.startswith("D")
    assert is_paper is not True
    assert typed.strip() == account


@given(account=ACCOUNTS, is_paper=st.sampled_from([None, True, False]))
def test_paper_passes_only_paper(account: str, is_paper: bool | None) -> None:
    guard = AccountGuard("paper")
    try:
        guard.admit(standing(account, is_paper))
    except NotArmedError:
        return
    assert account.startswith("D")
    assert is_paper is True


def test_another_login_after_a_break_ends_the_run() -> None:
    guard = AccountGuard("paper")
    guard.admit(standing("DU1", True))
    guard.still_holds(standing("DU1", True))
    # Told once, of the same account; that it is not told again is no news.
    guard.still_holds(standing("DU1", None))
    with pytest.raises(NotArmedError, match="another login"):
        guard.still_holds(standing("DU1", False, accounts=("U1",)))
    with pytest.raises(NotArmedError, match="contradicts"):
        guard.still_holds(standing("DU1", False))


def test_announced_before_it_is_asked() -> None:
    order: list[str] = []

    def ask(about: Standing) -> str:
        order.append("asked")
        return about.account

    guard = AccountGuard("live", account="U1", announce=lambda _: order.append("announced"), ask=ask)
    guard.admit(standing("U1", False))
    assert order == ["announced", "asked"]
