"""What is to be run, and what it means for market, instruments and bars."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any

import backtrader as bt
import msgspec

from bt_ibkr.app.market import BarLength
from bt_ibkr.config import ClearLines, Competing, LinesOverflow, SessionSettings, Trust
from bt_ibkr.emulator.build import open_market, open_universe
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.errors import AmbiguousContractError, ContractNotFoundError, UsageError
from bt_ibkr.login import GatewayLogin, Login
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.datanames import ContractQuery, parse_dataname

#: Exchanges of a dataname that leave the listing open.
_ANYWHERE = ("", "SMART", "IDEALPRO")
#: What is traded when nothing is named: two instruments of the synthetic market.
DEFAULT_SYMBOLS = ("AAPL", "SPY")


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run.

    Attributes:
        strategy: See ``app.loading``.
        assignments: ``name=value`` for the strategy's parameters.
        data: Datanames; by default all instruments of ``market``, or two of the synthetic one.
        market: ``FILE[:SYMBOL]``; empty for a synthetic day.
        history: Mode ``backtest``: folder of an archive whose bars are taken in place of a market; empty for none.
        bar: Length of the bars, as ``1min``.
        cash: At the start, in USD.
        start_ns, end_ns: Bounds of market time; 0 for none.
        speed: ``lockstep``, ``max`` or a factor; of the emulator only.
        fill: Fill model of the emulator.
        seed: Of the synthetic market.
        day: Of the synthetic market, ``YYYY-MM-DD``; empty for the default.
        commission: ``fixed``, ``tiered`` or ``none``.
        universe: Table of further instruments.
        gateway: REST base. Mode ``sim``: of an emulator that runs already; empty to start one. Modes ``paper`` and
            ``live``: of the gateway, an emulator, or IBKR itself; empty for where ``login`` usually logs on.
        trust: How its certificate is judged.
        account: Modes ``paper`` and ``live``: the account to trade in; empty for the login's selected one, which
            ``live`` does not take.
        confirm_account: Mode ``live``: the account's id once more, as the confirmation.
        login: Modes ``paper`` and ``live``: how to log on.
        competing: Modes ``paper`` and ``live``: what to do about another login that holds the brokerage session.
        region: Modes ``paper`` and ``live``: whose midnight resets the session.
        market_data_lines, lines_overflow, clear_lines: Modes ``paper`` and ``live``: as of ``SessionSettings``.
        risk: Modes ``paper`` and ``live``: what no order may go beyond.
        read_only: Modes ``paper`` and ``live``: no order leaves, whatever ``risk`` says.
        journal: Modes ``paper`` and ``live``: file of the journal; empty for the account's own.
        on_resume: Modes ``paper`` and ``live``: what is done with open orders of earlier runs.
        record: Folder that the ticks of the run are recorded into; empty for none. Not of mode ``backtest``.
        name: Modes ``paper`` and ``live``: the strategy's name in the journal; empty for one made from its class.
        hub: Modes ``paper`` and ``live``: endpoint of a hub that owns session and journal, or ``default``; empty for
            a session of this process.
        hub_keys: Key file of the strategy, for an encrypted hub.
    """

    strategy: str
    assignments: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    market: tuple[str, ...] = ()
    history: str = ""
    bar: str = "1min"
    cash: float = 100_000.0
    start_ns: int = 0
    end_ns: int = 0
    speed: str = "lockstep"
    fill: str = "quote"
    seed: int = 0
    day: str = ""
    commission: str = "fixed"
    universe: str = ""
    gateway: str = ""
    trust: Trust = Trust()
    account: str = ""
    confirm_account: str = ""
    login: Login = GatewayLogin()
    competing: Competing = SessionSettings().competing
    region: str = SessionSettings().region
    market_data_lines: int = SessionSettings().market_data_lines
    lines_overflow: LinesOverflow = SessionSettings().lines_overflow
    clear_lines: ClearLines = SessionSettings().clear_lines
    risk: RiskLimits = RiskLimits()
    read_only: bool = False
    journal: str = ""
    on_resume: str = "default"
    record: str = ""
    name: str = ""
    hub: str = ""
    hub_keys: str = ""


class Stopper:
    """Ends a run from outside (a signal handler): at once, but in order."""

    def __init__(self) -> None:
        self.asked = False
        self._stop: list[Callable[[], None]] = []

    @property
    def attached(self) -> bool:
        """Whether there is a run yet that can be ended in order."""
        return bool(self._stop)

    def attach(self, stop: Callable[[], None]) -> None:
        self._stop.append(stop)
        if self.asked:
            stop()

    def __call__(self) -> None:
        self.asked = True
        for stop in self._stop:
            stop()


def emulator_settings(request: RunRequest) -> EmulatorSettings:
    """The emulator of a run: every event a frame of its own, so that live bars equal the tape's."""
    speed: Any = request.speed
    if speed not in ("lockstep", "max"):
        try:
            speed = float(speed)
        except ValueError:
            raise UsageError(
                f"--speed {request.speed!r} is no speed.", remedy="Give lockstep, max, or a number above 0."
            ) from None
    if request.fill not in ("quote", "last"):
        raise UsageError(f"--fill {request.fill!r} is no fill model.", remedy="Give quote or last.")
    if request.commission not in ("fixed", "tiered", "none"):
        raise UsageError(
            f"--commission {request.commission!r} is no price list.", remedy="Give fixed, tiered or none."
        )
    if not 0 < request.cash < math.inf:
        raise UsageError(f"--cash {request.cash!r} cannot be traded with.", remedy="Give an amount above 0.")
    if request.start_ns and request.end_ns and request.start_ns >= request.end_ns:
        raise UsageError("--from is not before --to.", remedy="Give an earlier --from or a later --to.")
    synthetic: tuple[str, ...] = ()
    if not request.market:
        universe = open_universe(request.universe, request.day)
        named = request.data or DEFAULT_SYMBOLS
        # What is named twice is told by ``instruments_of``, in the words of the request.
        synthetic = tuple(
            dict.fromkeys(f"conid:{choose_instrument(universe, d).contract.conid}" for d in named)
        )
    return EmulatorSettings(
        port=0,
        market=request.market,
        synthetic_day=request.day,
        synthetic_instruments=synthetic,
        universe=request.universe,
        speed=speed,
        autostart=False,
        fill=request.fill,  # type: ignore[arg-type]
        seed=request.seed,
        pacing="off",
        conflation_ms=0,
        # As fast as the sockets take it, the market outruns any renewal.
        smd_lifetime_s=0.0 if speed == "max" else EmulatorSettings().smd_lifetime_s,
        cash=request.cash,
        commission=request.commission,  # type: ignore[arg-type]
    )


def choose_instrument(universe: Universe, text: str) -> Instrument:
    """The one instrument of the universe that a dataname means, by the rules of ``services.contracts``.

    Raises:
        ContractNotFoundError: None; suggests near symbols.
        AmbiguousContractError: Several; lists them.
    """
    query = parse_dataname(text)
    found = [i for i in universe.all() if _answers(i, query)]
    if len(found) > 1 and not query.currency and any(i.is_us for i in found):
        found = [i for i in found if i.is_us]
    if not found:
        near = difflib.get_close_matches(query.symbol, [i.contract.symbol for i in universe.all()], n=3)
        raise ContractNotFoundError(
            f"No instrument of the emulator's universe answers to {text!r}.",
            remedy=(f"Did you mean {', '.join(near)}? " if near else "")
            + "Further instruments can be added with --universe TABLE.",
        )
    if len(found) > 1:
        rows = ", ".join(f"conid:{i.contract.conid} ({i.company_name or i.contract.symbol})" for i in found)
        raise AmbiguousContractError(f"{text!r} is ambiguous: {rows}.", remedy="Name one by its conid.")
    return found[0]


def _answers(instrument: Instrument, query: ContractQuery) -> bool:
    contract = instrument.contract
    if query.conid:
        return contract.conid == query.conid
    return (
        contract.symbol == query.symbol
        and contract.security_type is query.security_type
        and (not query.currency or contract.currency == query.currency)
        and (query.exchange in _ANYWHERE or query.exchange in (contract.listing_exchange, contract.exchange))
        and (not query.expiry or (contract.last_trade_date or "").startswith(query.expiry))
    )


def instruments_of(request: RunRequest, settings: EmulatorSettings) -> list[tuple[str, Instrument]]:
    """Dataname and instrument of everything that the run follows."""
    universe, tape = open_market(settings)
    on_tape = [i for i in (universe.by_conid(conid) for conid in tape.conids) if i is not None]
    if not request.data:
        return [(dataname_of(instrument), instrument) for instrument in on_tape]
    chosen: list[tuple[str, Instrument]] = []
    for text in request.data:
        instrument = choose_instrument(universe, text)
        if instrument not in on_tape:
            names = ", ".join(sorted(i.contract.symbol for i in on_tape))
            raise ContractNotFoundError(
                f"The market of this run does not trade {text!r}; it trades {names}.",
                remedy="Name one of them with --data, or add its ticks with --market FILE:SYMBOL.",
            )
        if any(instrument is other for _, other in chosen):
            raise UsageError(
                f"--data {text!r} names {instrument.contract.symbol} a second time.", remedy="Name it once."
            )
        chosen.append((text, instrument))
    return chosen


def dataname_of(instrument: Instrument) -> str:
    """A dataname that means ``instrument`` and nothing else."""
    contract = instrument.contract
    if contract.security_type is SecurityType.FOREX:
        return f"{contract.symbol}-CASH-IDEALPRO"
    if contract.security_type is SecurityType.STOCK and instrument.is_us:
        return f"{contract.symbol}-STK-SMART-{contract.currency}"
    return f"conid:{contract.conid}"


def timeframe_of(bar: BarLength) -> dict[str, int]:
    """``timeframe`` and ``compression`` of a feed."""
    if not bar.ns:
        return {"timeframe": bt.TimeFrame.Ticks, "compression": 1}
    if bar.ns % 60_000_000_000 == 0:
        return {"timeframe": bt.TimeFrame.Minutes, "compression": bar.ns // 60_000_000_000}
    return {"timeframe": bt.TimeFrame.Seconds, "compression": bar.ns // 1_000_000_000}
