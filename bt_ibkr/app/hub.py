"""A hub from the command line: its session, its clock, its life until it is told to end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from bt_ibkr.app.control import ControlClient
from bt_ibkr.app.driving import FollowingClock
from bt_ibkr.app.login_file import default_base
from bt_ibkr.app.request import Stopper
from bt_ibkr.app.sim import market_clock, pacing_speed
from bt_ibkr.app.trade import emulator_at
from bt_ibkr.clock import Clock, ScaledClock, ServerClock, SystemClock
from bt_ibkr.config import ClearLines, Competing, LinesOverflow, SessionSettings, Trust, rest_base
from bt_ibkr.connection.guard import Standing
from bt_ibkr.errors import SessionError
from bt_ibkr.hub.arming import Arming
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.login import GatewayLogin, Login
from bt_ibkr.risk import RiskLimits


class HubRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served.

    Attributes:
        settings: Of the hub itself, accounts among them.
        mode: Kind that each account must be of.
        confirmed: Ids of accounts of real money, as the confirmation of mode ``live``.
        gateway, trust, login, competing, region, risk, journal, market_data_lines, lines_overflow, clear_lines: As
            ``RunRequest`` has them.
    """

    settings: HubSettings
    mode: Literal["paper", "live"] = "paper"
    confirmed: tuple[str, ...] = ()
    gateway: str = ""
    trust: Trust = Trust()
    login: Login = GatewayLogin()
    competing: Competing = SessionSettings().competing
    region: str = SessionSettings().region
    risk: RiskLimits = RiskLimits()
    journal: str = ""
    market_data_lines: int = SessionSettings().market_data_lines
    lines_overflow: LinesOverflow = SessionSettings().lines_overflow
    clear_lines: ClearLines = SessionSettings().clear_lines


class HubBanner(msgspec.Struct, frozen=True, kw_only=True):
    """An account that is about to be traded in, told before the first order can leave.

    Attributes:
        kind: ``paper`` or ``live``, as IBKR reports it.
        connection: REST base and way to log on; no secret.
        emulator: The server is an emulator.
    """

    mode: str
    account: str
    kind: str
    connection: str
    emulator: bool


def serve_hub(
    request: HubRequest,
    stopper: Stopper,
    *,
    ready: Callable[[HubThread], None],
    closing: Callable[[], None] = lambda: None,
    announce: Callable[[HubBanner], None] | None = None,
    ask: Callable[[str], str] | None = None,
) -> None:
    """Log on, serve until ``stopper`` is called, end in order.

    Args:
        request: What.
        stopper: Ends it; attached once strategies are let in.
        ready: Told then.
        closing: Told when the end begins.
        announce: Shown each account before its confirmation.
        ask: Given an account, returns the id that a person typed.

    Raises:
        NotArmedError: An account may not be traded in, or not any more: the session came back with another login.
        PortInUseError, JournalLockedError: Another hub has an endpoint, or the journal.
        BtIbkrError: The way to IBKR.
    """
    settings = SessionSettings(
        base_url=rest_base(request.gateway or default_base(request.login)),
        trust=request.trust,
        login=request.login,
        competing=request.competing,
        region=request.region,
        market_data_lines=request.market_data_lines,
        lines_overflow=request.lines_overflow,
        clear_lines=request.clear_lines,
    )
    connection = f"{settings.base_url} ({type(settings.login).__struct_config__.tag})"
    ended = threading.Event()
    with contextlib.ExitStack() as stack:
        emulator = emulator_at(settings, stack)
        clock: Clock = ServerClock(SystemClock())
        if emulator is not None:
            settings = msgspec.structs.replace(
                settings, pacing_speed=pacing_speed(emulator.state), contract_cache=False
            )
            clock = _clock_of(emulator.state)

        def tell(standing: Standing) -> None:
            if announce is not None:
                announce(
                    HubBanner(
                        mode=request.mode,
                        account=standing.account,
                        kind=standing.kind.value,
                        connection=connection,
                        emulator=emulator is not None,
                    )
                )

        hub = HubThread(
            settings,
            request.settings,
            clock=clock,
            journal=Path(request.journal) if request.journal else None,
            risk=request.risk,
            arming=Arming(
                request.mode,
                accounts=request.settings.accounts,
                confirmed=request.confirmed,
                announce=tell,
                ask=None if ask is None else lambda standing: ask(standing.account),
            ),
            emulator="" if emulator is None else emulator.url,
        )
        try:
            hub.server.on_failure = ended.set
            if emulator is not None:
                _join_market(clock, hub, emulator.client, emulator.state)
            stopper.attach(ended.set)
            ready(hub)
            if hub.server.failure is None:
                ended.wait()
            closing()
        finally:
            _close(hub)
    if hub.server.failure is not None:
        raise hub.server.failure


def _close(hub: HubThread) -> None:
    try:
        hub.close()
    except TimeoutError:
        raise SessionError(
            "The hub did not come to an end in order.",
            remedy="Its orders are on record: the next hub looks up what was under way.",
        ) from None


def _clock_of(state: dict[str, object]) -> Clock:
    """The market clock of a hub with an emulator. One that is moved step by step is moved by a strategy, not by the
    hub: there the market's time is as far as the stream has come."""
    clock = market_clock(state)
    return clock if isinstance(clock, ScaledClock) else FollowingClock(int(str(state["now_ns"])))


def _join_market(clock: Clock, hub: HubThread, control: ControlClient, state: dict[str, object]) -> None:
    """A market that goes by its own clock, and waits for somebody to start it, is started."""
    if isinstance(clock, FollowingClock):
        clock.stream_ns = hub.brokerage.stream_ns
    elif isinstance(clock, ScaledClock) and not state["started"]:
        clock.restart()
        control.post("/start", {})
