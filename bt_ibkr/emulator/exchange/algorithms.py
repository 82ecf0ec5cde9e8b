"""IBKR's algorithms: which there are, what they take, and how the emulator works an order with them.

Ids, parameters and their legal values are those of ``contract/{conid}/algos`` (recorded, and IBKR's
specification). How IBKR works an order nobody outside knows: here every algorithm releases the order in slices,
which then trade as the order's type and price allow.

* ``Adaptive``: ``Urgent`` at once, ``Normal`` in 3 slices over 15 seconds, ``Patient`` in 5 over a minute.
* ``ArrivalPx``: ``GetDone`` at once, ``Aggressive`` in 3 slices over 5 minutes, ``Neutral`` in 6 over 15,
  ``Passive`` in 10 over 30.
* ``Twap``: 12 equal slices from ``startTime`` to ``endTime``; ``Vwap``: 12 larger at both ends of that time
  than in its middle. Without times: from now to the close.
* ``PctVol``: ``pctVol`` percent of what others trade from ``startTime`` on, print by print.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.market.sessions import next_close_ns
from bt_ibkr.emulator.types import Algorithm, AlgorithmValue, Instrument
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import OrderType

_TIME = re.compile(r"([0-9]{8})-([0-9]{2}:[0-9]{2}:[0-9]{2})(?: UTC)?", re.ASCII)
_STOCK = frozenset({SecurityType.STOCK})
_MANY = frozenset(
    {
        SecurityType.STOCK,
        SecurityType.OPTION,
        SecurityType.FUTURE,
        SecurityType.FOREX,
        SecurityType.FUTURE_OPTION,
    }
)
#: Order types that algorithms take.
ORDER_TYPES = frozenset({OrderType.MARKET, OrderType.LIMIT})


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter, in the words of the answer of ``algos``."""

    id: str
    name: str
    kind: str
    rank: int
    required: bool = False
    default: AlgorithmValue | None = None
    legal: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    description: str = ""


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """One algorithm; ``security_types`` says for which instruments."""

    id: str
    name: str
    description: str
    security_types: frozenset[SecurityType]
    parameters: tuple[Parameter, ...]


_MAXIMUM = Parameter(
    id="maxPctVol",
    name="Max Percentage",
    kind="Double",
    rank=2,
    least=0.01,
    most=50.0,
    description="From 0.01 to 50.0",
)
_START = Parameter(
    id="startTime",
    name="Start Time",
    kind="Time",
    rank=4,
    description="Defaults to start of market trading",
)
_END = Parameter(
    id="endTime", name="End Time", kind="Time", rank=5, description="Defaults to end of market trading"
)
_PAST_END = Parameter(
    id="allowPastEndTime", name="Allow trading past end time", kind="Boolean", rank=6, default=False
)
_FORCE = Parameter(
    id="forceCompletion", name="Attempt completion by EOD", kind="Boolean", rank=7, default=False
)
_NO_LIQUIDITY = Parameter(
    id="noTakeLiq", name="Attempt to never take liquidity", kind="Boolean", rank=8, default=False
)

DEFINITIONS = (
    Definition(
        id="Adaptive",
        name="Adaptive",
        description="Works an order between the quotes, the faster the more urgent it is.",
        security_types=_MANY,
        parameters=(
            Parameter(
                id="adaptivePriority",
                name="Adaptive order priority/urgency",
                kind="String",
                rank=1,
                required=True,
                default="Normal",
                legal=("Urgent", "Normal", "Patient"),
            ),
        ),
    ),
    Definition(
        id="ArrivalPx",
        name="Arrival Price",
        description="Tries for the price at which the order arrived.",
        security_types=_STOCK,
        parameters=(
            Parameter(
                id="riskAversion",
                name="Urgency/Risk aversion",
                kind="String",
                rank=3,
                required=True,
                default="Neutral",
                legal=("GetDone", "Aggressive", "Neutral", "Passive"),
            ),
            _PAST_END,
            _FORCE,
            _START,
            msgspec.structs.replace(_MAXIMUM, required=True),
            _END,
        ),
    ),
    Definition(
        id="PctVol",
        name="Percentage of Volume",
        description="Takes part in what others trade.",
        security_types=_STOCK,
        parameters=(
            Parameter(
                id="pctVol",
                name="Target Percentage",
                kind="Double",
                rank=1,
                required=True,
                least=0.01,
                most=50.0,
                description="From 0.01 to 50.0",
            ),
            _START,
            _END,
            _NO_LIQUIDITY,
        ),
    ),
    Definition(
        id="Twap",
        name="TWAP",
        description="Spreads the order evenly over a time.",
        security_types=_STOCK,
        parameters=(_START, _END, _PAST_END),
    ),
    Definition(
        id="Vwap",
        name="VWAP",
        description="Spreads the order over a time as volume is usually spread over the day.",
        security_types=_STOCK,
        parameters=(_MAXIMUM, _START, _END, _PAST_END, _NO_LIQUIDITY),
    ),
)
_BY_ID = {one.id: one for one in DEFINITIONS}


def offered(instrument: Instrument) -> tuple[Definition, ...]:
    """The algorithms for an instrument."""
    if not instrument.is_us and instrument.contract.security_type is SecurityType.STOCK:
        return ()
    return tuple(one for one in DEFINITIONS if instrument.contract.security_type in one.security_types)


def read(name: str, given: Mapping[str, object], instrument: Instrument) -> Algorithm | str:
    """The algorithm of an order with checked parameters and defaults; or why it is refused.

    The words are those of the TWS API's messages 439 and 441.
    """
    definition = _BY_ID.get(name)
    if definition is None or definition not in offered(instrument):
        return f"Order processing failed. Algorithm definition not found: {name}"
    known = {one.id: one for one in definition.parameters}
    for key in given:
        if key not in known:
            return f"Algo attributes validation failed: {key} is not an attribute of {name}"
    values: list[tuple[str, AlgorithmValue]] = []
    for parameter in definition.parameters:
        value = given.get(parameter.id, parameter.default)
        if value is None:
            if parameter.required:
                return f"Algo attributes validation failed: {parameter.id} is required"
            continue
        checked = _checked(parameter, value)
        if checked is None:
            return f"Algo attributes validation failed: {parameter.id} cannot be {value}"
        values.append((parameter.id, checked))
    return Algorithm(name, tuple(values))


def _checked(parameter: Parameter, value: object) -> AlgorithmValue | None:
    """The value as its kind; numbers and flags may come as text, as clients of the TWS API send them."""
    if parameter.kind == "Boolean":
        words = {"1": True, "true": True, "0": False, "false": False}
        return value if isinstance(value, bool) else words.get(str(value).lower())
    if parameter.kind == "Double":
        try:
            number = float(str(value))
        except ValueError:
            return None
        least = parameter.least if parameter.least is not None else number
        most = parameter.most if parameter.most is not None else number
        return number if not isinstance(value, bool) and least <= number <= most else None
    if parameter.kind == "Time":
        return value if isinstance(value, str) and _moment(value) is not None else None
    return value if isinstance(value, str) and value in parameter.legal else None


def _moment(text: str) -> int | None:
    """``20260302-15:00:00``, UTC, as the wire has its times."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    try:
        moment = datetime.strptime(f"{found[1]} {found[2]}", "%Y%m%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) * NS_PER_S


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """When how much of an order is released.

    Attributes:
        slices: Times and the fractions of the order that are released by then; the last is 1.
        participation: Instead: the fraction of what others trade, from ``start_ns`` on.
    """

    slices: tuple[tuple[int, Decimal], ...] = ()
    participation: Decimal | None = None
    start_ns: int = 0


_ADAPTIVE = {"Urgent": (1, 0), "Normal": (3, 15), "Patient": (5, 60)}
_ARRIVAL = {"GetDone": (1, 0), "Aggressive": (3, 300), "Neutral": (6, 900), "Passive": (10, 1800)}
_SLICES = 12


def plan(algorithm: Algorithm, instrument: Instrument, now_ns: int) -> Plan:
    """How an order that arrives now is worked."""
    start_ns = max(_time(algorithm, "startTime") or now_ns, now_ns)
    if algorithm.name == "PctVol":
        percent = Decimal(repr(float(str(algorithm.value("pctVol")))))
        return Plan(participation=percent / 100, start_ns=start_ns)
    if algorithm.name in ("Adaptive", "ArrivalPx"):
        paces = _ADAPTIVE | _ARRIVAL
        word = algorithm.value("adaptivePriority") or algorithm.value("riskAversion")
        count, seconds = paces[str(word)]
        return Plan(slices=_even(start_ns, start_ns + seconds * NS_PER_S, [1] * count))
    end_ns = _time(algorithm, "endTime") or next_close_ns(instrument, start_ns)
    weights = [1] * _SLICES
    if algorithm.name == "Vwap":
        weights = [1 + abs(2 * k - _SLICES + 1) for k in range(_SLICES)]
    return Plan(slices=_even(start_ns, max(end_ns, start_ns), weights))


def _time(algorithm: Algorithm, name: str) -> int | None:
    value = algorithm.value(name)
    return _moment(value) if isinstance(value, str) else None


def _even(start_ns: int, end_ns: int, weights: list[int]) -> tuple[tuple[int, Decimal], ...]:
    """Slices that begin with the first moment and end a slice's length before the last."""
    count, total = len(weights), sum(weights)
    done = 0
    slices: list[tuple[int, Decimal]] = []
    for index, weight in enumerate(weights):
        done += weight
        slices.append((start_ns + (end_ns - start_ns) * index // count, Decimal(done) / total))
    return tuple(slices)
