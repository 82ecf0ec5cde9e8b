"""From settings to a running core."""

from __future__ import annotations

from datetime import UTC, date, datetime

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.accounts.account import AccountConfig
from bt_ibkr.emulator.engine import Engine, EngineConfig
from bt_ibkr.emulator.market.derived import derivation
from bt_ibkr.emulator.market.naming import named
from bt_ibkr.emulator.market.options import load_market
from bt_ibkr.emulator.market.synthetic import SyntheticMarket, SyntheticShape
from bt_ibkr.emulator.market.tape import TapeLike
from bt_ibkr.emulator.services.core import Core
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe import Universe, default_universe
from bt_ibkr.errors import UsageError

#: A day on which New York trades: the first one of a synthetic market unless another is named.
DEFAULT_DAY = date(2026, 3, 2)


def build_core(settings: EmulatorSettings) -> Core:
    """Universe, tape and engine as the settings want them.

    Raises:
        MarketFileError: A tape or table cannot be used.
        UsageError: A symbol or day that cannot be used.
    """
    universe, tape = open_market(settings)
    config = EngineConfig(
        seed=settings.seed,
        fill=settings.fill,
        accounts=tuple(
            AccountConfig(account_id=account, cash=settings.cash, currency=settings.currency)
            for account in settings.accounts
        ),
        commission=settings.commission,
        margin=settings.margin,
        regular_hours_enforced=settings.regular_hours,
    )
    engine = Engine(tape=tape, universe=universe, config=config)
    return Core(settings=settings, engine=engine, universe=universe)


def open_universe(table: str, day: str = "") -> Universe:
    """The built-in universe, extended by the table at path ``table`` unless that is empty.

    Args:
        table: CSV or Parquet.
        day: Futures that trade on it are listed, ``YYYY-MM-DD``; empty for the day of a synthetic market.

    Raises:
        MarketFileError: The table cannot be used.
        UsageError: That is no day.
    """
    universe = default_universe()
    if table:
        universe.extend_from_table(table)
    universe.list_around(_day(day))
    return universe


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text) if text else DEFAULT_DAY
    except ValueError:
        raise UsageError(f"Synthetic market: {text!r} is not a day.", remedy="Write it YYYY-MM-DD.") from None


def open_market(settings: EmulatorSettings) -> tuple[Universe, TapeLike]:
    """The universe and the tape alone; raises as ``build_core``."""
    universe = default_universe()
    if settings.universe:
        universe.extend_from_table(settings.universe)
    tape = load_market(settings.market, universe) if settings.market else _synthetic(settings, universe)
    universe.list_around(datetime.fromtimestamp(tape.start_ns // NS_PER_S, tz=UTC).date())
    return universe, tape


def _synthetic(settings: EmulatorSettings, universe: Universe) -> TapeLike:
    day = _day(settings.synthetic_day)
    instruments: list[Instrument] = []
    asked: set[int] = set()
    for name in settings.synthetic_instruments:
        found = named(universe, name.removeprefix("conid:"), day)
        if not found:
            raise UsageError(
                f"Synthetic market: {name!r} is not a symbol of the universe.",
                remedy="Add it with a universe table, or name another.",
            )
        if found[0].contract.conid in asked:
            raise UsageError(
                f"Synthetic market: {name!r} is named a second time.", remedy="Name each instrument once."
            )
        asked.add(found[0].contract.conid)
        instruments += [one for one in _sources(found[0], universe) if one not in instruments]
    shape = SyntheticShape(
        prior_days=settings.history_days,
        days=settings.synthetic_days,
        events_per_second=settings.synthetic_rate,
    )
    return SyntheticMarket(instruments, day, settings.seed, shape=shape)


def _sources(one: Instrument, universe: Universe) -> list[Instrument]:
    """What has to trade for an instrument to have a quote: itself, or what it follows from."""
    follows = derivation(one, universe)
    if follows is None:
        return [one]
    sources = (universe.by_conid(conid) for conid in follows.sources)
    return [source for each in sources if each is not None for source in _sources(each, universe)]
