"""What an order is on: a contract, a contract on an exchange, or a combo (wire facts, sections 7.1 and 7.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from bt_ibkr.emulator.combos import SPREAD_CONIDS, parse_spread
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.errors import ApiError
from bt_ibkr.emulator.services.orders.ticket_form import business, rejected
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import SecurityType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_FUTURES = frozenset({SecurityType.FUTURE, SecurityType.FUTURE_OPTION})


class Address(msgspec.Struct, frozen=True):
    """The instrument, and where the order is routed."""

    instrument: Instrument
    exchange: str


def address(core: Core, ticket: dict[str, Any]) -> Address:
    """Find what the ticket is on; a ``conid`` forces SMART even beside a ``conidex``.

    Raises:
        ApiError: It names nothing, or nothing that is known.
    """
    conid = ticket.get("conid")
    if conid is not None:
        return Address(_known(core, conid), "SMART")
    text = ticket.get("conidex", "").strip()
    if not text:
        raise errors.error(400, "conid or conidex is required")
    if ";" in text:
        return _combo(core, text)
    head, _, exchange = text.partition("@")
    if not (head.isascii() and head.isdigit() and len(head) <= 18):
        raise _nothing(head)
    instrument = _known(core, int(head))
    exchange = exchange or "SMART"
    if exchange != "SMART" and exchange not in (*instrument.valid_exchanges, instrument.contract.exchange):
        raise business(f"Invalid destination or exchange selected: {exchange}")
    return Address(instrument, exchange)


def _combo(core: Core, text: str) -> Address:
    spread = parse_spread(text)
    currency = None if spread is None else SPREAD_CONIDS.get(spread.conid)
    if spread is None or currency is None:
        raise _nothing(text.partition(";")[0])
    if currency != "USD" and spread.exchange == "SMART":
        raise business(f"Invalid destination or exchange selected: {spread.exchange}")
    try:
        instrument = core.universe.combo(spread.legs)
    except UsageError as problem:
        raise business(problem.message) from None
    if instrument.contract.currency != currency:
        raise _nothing(str(spread.conid))
    return Address(instrument, spread.exchange)


def _known(core: Core, conid: int) -> Instrument:
    instrument = core.instrument(conid) if conid > 0 else None
    if instrument is None:
        raise _nothing(str(conid))
    return instrument


def _nothing(conid: str) -> ApiError:
    return business(f"no sec defs returned forSecDef reqId=resolve ecReqByConid{conid}")


def check_permission(core: Core, instrument: Instrument) -> None:
    """Refuse what the account may not trade; of a combo each leg counts.

    Raises:
        ApiError: As the order it looks like, id -1.
    """
    allowed = core.settings.permissions
    kinds = {one.contract.security_type for one in _parts(core, instrument)}
    if allowed and not all(kind.value in allowed for kind in kinds):
        raise rejected("No trading permissions.")


def check_operator(core: Core, ticket: dict[str, Any], instrument: Instrument) -> None:
    """Orders on futures and their options say who entered them (CME rule 536-B).

    Raises:
        ApiError: They do not.
    """
    for name in ("manualIndicator", "extOperator"):
        if on_futures(core, instrument) and ticket.get(name) in (None, ""):
            raise business(f"{name} is required for orders on futures and futures options")


def on_futures(core: Core, instrument: Instrument) -> bool:
    return any(one.contract.security_type in _FUTURES for one in _parts(core, instrument))


def _parts(core: Core, instrument: Instrument) -> list[Instrument]:
    legs = [core.instrument(leg.conid) for leg in instrument.contract.legs]
    return [leg for leg in legs if leg is not None] or [instrument]
