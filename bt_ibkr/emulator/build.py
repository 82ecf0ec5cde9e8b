"""From settings to a running core."""

from __future__ import annotations

from datetime import date

from bt_ibkr.emulator.accounts.account import AccountConfig
from bt_ibkr.emulator.engine import Engine, EngineConfig
from bt_ibkr.emulator.market.options import load_market
from bt_ibkr.emulator.market.synthetic import SyntheticMarket, SyntheticShape
from bt_ibkr.emulator.market.tape import TapeLike
from bt_ibkr.emulator.services.core import Core
from bt_ibkr.emulator.settings import EmulatorSettings
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


def open_universe(table: str) -> Universe:
    """The built-in universe, extended by the table at path ``table`` unless that is empty."""
    universe = default_universe()
    if table:
        universe.extend_from_table(table)
    return universe


def open_market(settings: EmulatorSettings) -> tuple[Universe, TapeLike]:
    """The universe and the tape alone; raises as ``build_core``."""
    universe = open_universe(settings.universe)
    tape = load_market(settings.market, universe) if settings.market else _synthetic(settings, universe)
    return universe, tape


def _synthetic(settings: EmulatorSettings, universe: Universe) -> TapeLike:
    instruments = []
    for name in settings.synthetic_instruments:
        if name.startswith("conid:") and name[6:].isdigit():
            one = universe.by_conid(int(name[6:]))
            found = [] if one is None else [one]
        else:
            found = universe.by_symbol(name)
        if not found:
            raise UsageError(
                f"Synthetic market: {name!r} is not a symbol of the universe.",
                remedy="Add it with a universe table, or name another.",
            )
        if found[0] in instruments:
            raise UsageError(
                f"Synthetic market: {name!r} is named a second time.", remedy="Name each instrument once."
            )
        instruments.append(found[0])
    try:
        day = date.fromisoformat(settings.synthetic_day) if settings.synthetic_day else DEFAULT_DAY
    except ValueError:
        raise UsageError(
            f"Synthetic market: {settings.synthetic_day!r} is not a day.", remedy="Write it YYYY-MM-DD."
        ) from None
    shape = SyntheticShape(prior_days=settings.history_days)
    return SyntheticMarket(instruments, day, settings.seed, shape=shape)
