"""How long an order stands: ``valid`` and ``tif`` as the user gave them, as IBKR takes them.

IBKR's Web API has no good-till-date. An order with a moment as its end goes out good-till-cancelled, and the adapter
cancels it then (``OrderIntent.expires_ns``), also after a restart.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.feeds.times import ns_of
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.order import TimeInForce
from bt_ibkr.services.calendars import day_end_ns

#: The adapter's own word, for an order that ends at a moment.
GOOD_TILL_DATE = "GTD"
_WORDS = {word.value: word for word in TimeInForce}
#: Beside a moment as the end only these make sense.
_WITH_A_MOMENT = frozenset({TimeInForce.GOOD_TILL_CANCELLED, TimeInForce.DAY, TimeInForce.OVERNIGHT_AND_DAY})
#: backtrader cannot reckon with later times.
_MOST_DAYS = 36_500.0
_REMEDY = "Give None, Order.DAY, a date, a datetime, a timedelta, or a number of days from 0."


def is_moment(valid: Any) -> bool:
    """Whether ``valid`` names a moment at which the order ends.

    Raises:
        OrderRefusedError: It is no validity at all.
    """
    if valid is None:
        return False
    if isinstance(valid, date):
        return True
    if isinstance(valid, timedelta):
        if timedelta() <= valid <= timedelta(days=_MOST_DAYS):
            return valid != timedelta()
    # A number counts days: one below 0 or NaN would otherwise stand until it is cancelled.
    elif isinstance(valid, (int, float)) and not isinstance(valid, bool) and 0 <= valid <= _MOST_DAYS:
        return valid != 0
    raise OrderRefusedError(f"valid={valid!r} is no validity.", remedy=_REMEDY)


def time_in_force(
    valid: Any, tif: Any = None, *, default: TimeInForce = TimeInForce.GOOD_TILL_CANCELLED
) -> TimeInForce:
    """IBKR's time in force for what the user passed.

    Args:
        valid: As backtrader's ``buy()`` takes it.
        tif: IBKR's word, ``GTD``, or ``None``.
        default: Where neither says.

    Raises:
        OrderRefusedError: ``valid`` is no validity, ``tif`` no word, or they contradict each other.
    """
    moment = is_moment(valid)
    if tif is None:
        if moment:
            return TimeInForce.GOOD_TILL_CANCELLED
        return default if valid is None else TimeInForce.DAY
    word = str(getattr(tif, "value", tif)).upper()
    if word == GOOD_TILL_DATE:
        if not moment:
            raise OrderRefusedError(
                f"tif='GTD' needs the date, and valid={valid!r} is none.",
                remedy="Give valid a date, a datetime or a timedelta.",
            )
        return TimeInForce.GOOD_TILL_CANCELLED
    found = _WORDS.get(word)
    if found is None:
        raise OrderRefusedError(
            f"tif={tif!r} is no time in force.", remedy=f"Use one of {', '.join(_WORDS)} or {GOOD_TILL_DATE}."
        )
    if moment and found not in _WITH_A_MOMENT:
        raise OrderRefusedError(
            f"tif={word!r} and valid={valid!r} contradict each other.", remedy="Give one of them."
        )
    if valid is not None and not moment and found is not TimeInForce.DAY:
        raise OrderRefusedError(
            f"tif={word!r} and a validity of one day contradict each other.", remedy="Give one of them."
        )
    return found


def expiry_ns(order: Any, contract: Contract, now_ns: int, *, extended: bool = False) -> int | None:
    """When the adapter itself has to cancel the order; ``None`` if IBKR ends it.

    A ``datetime`` without a zone is in the feed's zone (UTC unless the feed has one), as backtrader reads it. A
    ``date`` is the end of that day's session at the exchange. A ``timedelta``, or a number of days, counts from
    now.

    Args:
        order: A backtrader order; its own ``valid`` was rewritten, ``order.p.valid`` is what the user gave.
        contract: Whose session a date means.
        now_ns: The market's time now.
        extended: The order may trade in extended hours.

    Raises:
        OrderRefusedError: The moment has passed already.
    """
    valid = order.p.valid
    if not is_moment(valid):
        return None
    if isinstance(valid, datetime):
        end = ns_of(valid if valid.tzinfo is not None else _localized(valid, _zone_of(order.data)))
    elif isinstance(valid, date):
        end = day_end_ns(contract, valid, extended=extended)
    else:
        span = valid if isinstance(valid, timedelta) else timedelta(days=valid)
        end = now_ns + round(span / timedelta(microseconds=1)) * 1000
    if end <= now_ns:
        late = (now_ns - end) / NS_PER_S
        raise OrderRefusedError(
            f"valid={valid!r} is {late:.0f} s in the past for {contract.symbol}.",
            remedy="Give a later moment. It was not sent.",
        )
    return end


def readable_valid(valid: Any, data: Any) -> Any:
    """``valid`` as backtrader's ``Order`` can take it: on a feed with a zone it raises for a ``date``, and for a
    ``datetime`` that has a zone already.

    Who makes the order with this sets ``order.p.valid`` to what the user gave afterwards: that is what ``expiry_ns``
    reads.

    Args:
        valid: As the user gave it.
        data: The order's feed.

    Returns:
        The same moment as a ``datetime`` without a zone, to be read in the feed's; of a ``date`` its midnight, as
        in a backtest; anything else as it is.
    """
    zone = _zone_of(data)
    if zone is None or not isinstance(valid, date):
        return valid
    if not isinstance(valid, datetime):
        return datetime.combine(valid, time())
    if valid.tzinfo is None:
        return valid
    plain = valid.astimezone(zone).replace(tzinfo=None, fold=0)
    return plain if ns_of(_localized(plain, zone)) == ns_of(valid) else plain.replace(fold=1)


def _zone_of(data: Any) -> tzinfo | None:
    zone: tzinfo | None = getattr(data, "_tz", None)
    return zone


def _localized(moment: datetime, zone: tzinfo | None) -> datetime:
    """A moment of the zone's clock. Of an hour that comes twice pytz, and so backtrader, means the second unless
    ``fold`` is 1; other zones mean the first unless ``fold`` is 1."""
    if zone is None:
        return moment
    localize = getattr(zone, "localize", None)
    if localize is None:
        return moment.replace(tzinfo=zone)
    if not hasattr(zone, "normalize"):  # backtrader's own wrapper around any other zone
        found: datetime = localize(moment)
        return found
    asked: datetime = localize(moment.replace(fold=0), is_dst=bool(moment.fold))
    return asked
