"""The limits a user sets: for everything, for one account, for one strategy. Frozen, checked where they are made."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import Side

#: What switches a limit off in a file, which has no word for nothing.
OFF: Final = "off"


class Kind(Enum):
    """What a limit's value is, in words for messages."""

    SIZE = "a number above 0"
    MONEY = "an amount above 0, in the account's base currency"
    PERCENT = "a percentage above 0 (20 is 20 %)"
    COUNT = "a whole number above 0"
    SECONDS = "seconds above 0"
    FLAG = "true or false"
    CONTRACTS = "a list of symbols or contract ids"
    SECURITY_TYPES = "a list of IBKR's security types, such as STK or FUT"
    SIDES = "a list of BUY and SELL"

    @property
    def optional(self) -> bool:
        """Whether the limit can be off; a flag is true or false."""
        return self is not Kind.FLAG


KINDS: Final[dict[str, Kind]] = {
    "read_only": Kind.FLAG,
    "allowed_contracts": Kind.CONTRACTS,
    "forbidden_contracts": Kind.CONTRACTS,
    "allowed_security_types": Kind.SECURITY_TYPES,
    "allowed_sides": Kind.SIDES,
    "check_tick": Kind.FLAG,
    "check_lot": Kind.FLAG,
    "max_order_size": Kind.SIZE,
    "max_order_notional": Kind.MONEY,
    "price_band_percent": Kind.PERCENT,
    "passive_band_percent": Kind.PERCENT,
    "stop_band_percent": Kind.PERCENT,
    "allow_delayed_data": Kind.FLAG,
    "allow_frozen_data": Kind.FLAG,
    "allow_halted": Kind.FLAG,
    "allow_no_data": Kind.FLAG,
    "max_quote_age_s": Kind.SECONDS,
    "only_when_open": Kind.FLAG,
    "max_position_size": Kind.SIZE,
    "max_position_notional": Kind.MONEY,
    "max_open_orders": Kind.COUNT,
    "daily_loss_limit": Kind.MONEY,
    "daily_loss_percent": Kind.PERCENT,
    "duplicate_window_s": Kind.SECONDS,
    "orders_per_minute": Kind.COUNT,
    "account_orders_per_minute": Kind.COUNT,
}

#: Of the account as a whole: they cannot be set for one strategy.
ACCOUNT_ONLY: Final = frozenset(
    {"max_open_orders", "daily_loss_limit", "daily_loss_percent", "account_orders_per_minute"}
)

#: What one account or one strategy has other than all.
Changes = Mapping[str, Any]


class RiskLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What no order may go beyond. ``None`` means not limited.

    Attributes:
        read_only: No order at all, whatever it is for.
        allowed_contracts: Only these may be traded: symbols or contract ids; of a combo every leg.
        forbidden_contracts: These may not be traded; a combo not if one of its legs is.
        allowed_security_types: Only instruments of these types.
        allowed_sides: Only orders of these sides; `["BUY"]` makes long-only.
        check_tick: Limit and stop prices are multiples of the contract's price step.
        check_lot: Quantities are multiples of the contract's size step.
        max_order_size: Most units of one order.
        max_order_notional: Most money one order may move: units times price times multiplier.
        price_band_percent: How far a limit may lie beyond the market on the side that costs money: above the
            ask for a buy, below the bid for a sell.
        passive_band_percent: How far a limit may lie on the other side, where it waits.
        stop_band_percent: How far a stop or touch price may lie from the market, on either side.
        allow_delayed_data: Trade on delayed market data.
        allow_frozen_data: Trade on frozen market data while the exchange is open or its hours are not known.
        allow_halted: Trade an instrument that is halted.
        allow_no_data: Trade an instrument without market data.
        max_quote_age_s: Oldest quote to trade on, unless the exchange is closed.
        only_when_open: Trade only while the instrument's exchange is open.
        max_position_size: Largest position in one contract, long or short, all open orders executed.
        max_position_notional: The same in money.
        max_open_orders: Most open orders of the account.
        daily_loss_limit: Loss of the day at which trading becomes REDUCING.
        daily_loss_percent: The same in percent of what the account was worth before that loss.
        duplicate_window_s: How long the same order (strategy, contract, side, size, type, prices) is refused again.
        orders_per_minute: Most orders and changes of one strategy in one account within any 60 s.
        account_orders_per_minute: The same for all strategies of the account together.
        accounts: What is other for one account: fields by account id.
        strategies: What is other for one strategy: fields by its name.
        source: Where the limits come from, for messages.

    A field set for the account and for the strategy of an order has two values: the order must hold to both. At
    a hub each strategy has a book of its own: ``max_position_size`` and ``max_position_notional`` of a strategy are
    of that book, and hold beside those of the account.

    Raises:
        UsageError: A value is none; the message names place, key, value and remedy.
    """

    read_only: bool = False
    allowed_contracts: tuple[str, ...] | None = None
    forbidden_contracts: tuple[str, ...] | None = None
    allowed_security_types: tuple[str, ...] | None = None
    allowed_sides: tuple[str, ...] | None = None
    check_tick: bool = True
    check_lot: bool = True
    max_order_size: Decimal | None = None
    max_order_notional: Decimal | None = None
    price_band_percent: Decimal | None = Decimal(20)
    passive_band_percent: Decimal | None = None
    stop_band_percent: Decimal | None = None
    allow_delayed_data: bool = False
    allow_frozen_data: bool = False
    allow_halted: bool = False
    allow_no_data: bool = False
    max_quote_age_s: Decimal | None = None
    only_when_open: bool = False
    max_position_size: Decimal | None = None
    max_position_notional: Decimal | None = None
    max_open_orders: int | None = None
    daily_loss_limit: Decimal | None = None
    daily_loss_percent: Decimal | None = None
    duplicate_window_s: Decimal | None = None
    orders_per_minute: int | None = 300
    account_orders_per_minute: int | None = None
    accounts: Mapping[str, Changes] = {}
    strategies: Mapping[str, Changes] = {}
    source: str = "RiskLimits"

    def __post_init__(self) -> None:
        for name in KINDS:
            value = checked(self.source, name, getattr(self, name))
            msgspec.structs.force_setattr(self, name, value)
        for table in ("accounts", "strategies"):
            given = getattr(self, table)
            if not isinstance(given, Mapping):
                _refuse(self.source, table, given, "is no table of limits by name", f"Write [{table}.NAME].")
            changes = {name: self._changes(table, name, fields) for name, fields in given.items()}
            msgspec.structs.force_setattr(self, table, changes)

    def _changes(self, table: str, name: str, fields: object) -> Changes:
        place = f"{self.source} [{table}.{name}]"
        if not isinstance(fields, Mapping):
            _refuse(place, name, fields, "is no table of limits", f"Write [{table}.{name}] above the limits.")
        known(place, fields, KINDS)
        for field in ACCOUNT_ONLY.intersection(fields) if table == "strategies" else ():
            _refuse(place, field, fields[field], "is of a whole account", "Set it for all or for an account.")
        return {field: checked(place, field, value) for field, value in fields.items()}

    def scopes(self, account: str, strategy: str) -> tuple[Scope, ...]:
        """What holds for an order: one set of limits, or two where account and strategy disagree on a field."""
        by_account = {f: (v, f"[accounts.{account}]") for f, v in self.accounts.get(account, {}).items()}
        by_strategy = {
            f: (v, f"[strategies.{strategy}]") for f, v in self.strategies.get(strategy, {}).items()
        }
        found = [self._scope({**by_strategy, **by_account})]
        if any(by_account[f][0] != by_strategy[f][0] for f in by_account.keys() & by_strategy.keys()):
            found.append(self._scope({**by_account, **by_strategy}))
        return tuple(found)

    def apart(self, account: str, strategy: str, fields: Sequence[str]) -> tuple[Scope, ...]:
        """What holds for an order of a strategy that has a book of its own: the account's limits for the account, and
        those of ``fields`` that are set for the strategy for its book."""
        of_account = self.scopes(account, "")
        own = {f: v for f, v in self.strategies.get(strategy, {}).items() if f in fields}
        if not own:
            return of_account
        given = {field: own.get(field) for field in fields}
        place = f"[strategies.{strategy}]"
        scope = self._scope({field: (value, place) for field, value in given.items()})
        return (*of_account, scope._replace(own=True))

    def _scope(self, changes: dict[str, tuple[Any, str]]) -> Scope:
        values = {field: value for field, (value, _) in changes.items()}
        limits = msgspec.structs.replace(self, accounts={}, strategies={}, **values)
        return Scope(limits, {field: place for field, (_, place) in changes.items()})


class Scope(NamedTuple):
    """The limits that hold for an order, and in which table each was set that is not of all.

    With ``own`` they are of the strategy's book, not of the account.
    """

    limits: RiskLimits
    places: Mapping[str, str]
    own: bool = False

    def place(self, field: str) -> str:
        """Where to change a limit: ``max_order_size in [accounts.U1] of risk.toml``."""
        table = self.places.get(field)
        return f"{field} in {table} of {self.limits.source}" if table else f"{field} in {self.limits.source}"


def known(place: str, given: Mapping[Any, Any], names: Mapping[str, Any]) -> None:
    """Refuse a key that is no limit, with the names it may be a slip of.

    Raises:
        UsageError: Such a key.
    """
    for key in given:
        if key in names:
            continue
        near = difflib.get_close_matches(str(key), list(names), n=3, cutoff=0.6)
        meant = f"Did you mean {' or '.join(near)}?" if near else f"The limits are {', '.join(KINDS)}."
        raise UsageError(f"{place}: {key!r} is no limit.", remedy=meant)


def checked(place: str, name: str, value: object) -> object:
    """The value as the limit has it: numbers as ``Decimal``, lists as tuples, ``off`` as ``None``.

    Raises:
        UsageError: It is no value of this limit.
    """
    kind = KINDS[name]
    if kind.optional and (value is None or value == OFF):
        return None
    if kind is Kind.FLAG:
        return value if isinstance(value, bool) else _refuse(place, name, value, f"is not {kind.value}")
    if kind in (Kind.CONTRACTS, Kind.SECURITY_TYPES, Kind.SIDES):
        return _words(place, name, value, kind)
    return _number(place, name, value, kind)


def _number(place: str, name: str, value: object, kind: Kind) -> Decimal | int:
    wanted = kind.value
    if kind is Kind.COUNT:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        _refuse(place, name, value, f"is not {wanted}")
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or not math.isfinite(value):
        _refuse(place, name, value, f"is not {wanted}")
    if not value > 0:
        _refuse(place, name, value, f"is not {wanted}")
    # A float stands for the number a person wrote: 0.1 is 0.1.
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _words(place: str, name: str, value: object, kind: Kind) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)) or not value:
        remedy = (
            ""
            if value
            else f'An empty list would allow or forbid nothing: write "{OFF}", or read_only = true.'
        )
        _refuse(place, name, value, f"is not {kind.value}", remedy)
    found = []
    for item in value:
        word = str(item).strip() if isinstance(item, (str, int)) and not isinstance(item, bool) else ""
        if not word:
            _refuse(place, name, item, f"does not belong in {kind.value}")
        if kind is not Kind.CONTRACTS:
            word = word.upper()
            allowed = {one.value for one in (Side if kind is Kind.SIDES else SecurityType)} - {"?"}
            if word not in allowed:
                _refuse(
                    place,
                    name,
                    item,
                    f"does not belong in {kind.value}",
                    f"Give {', '.join(sorted(allowed))}.",
                )
        found.append(word)
    return tuple(found)


def _refuse(place: str, name: str, value: object, why: str, remedy: str = "") -> NoReturn:
    shown = str(value) if isinstance(value, Decimal) else repr(value)
    kind = KINDS.get(name)
    if not remedy and kind is not None:
        remedy = f"Give {kind.value}" + (f', or "{OFF}" for no limit.' if kind.optional else ".")
    raise UsageError(f"{place}: {name} = {shown:.80} {why}.", remedy=remedy)
