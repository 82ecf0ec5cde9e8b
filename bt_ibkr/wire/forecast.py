"""``/forecast/*``: event contracts, by category, market and contract.

Three kinds of ids are about: a market's ``conid`` (its artificial underlying, which ``contract/market`` takes), its
``product_conid`` (which nothing here takes), and the conids of the contracts themselves, one for yes and one for no.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from bt_ibkr.wire import fields

_RIGHTS: Final = {"Y": "C", "N": "P"}
_DAY: Final = re.compile(r"[0-9]{8}", re.ASCII)


class EventMarket(msgspec.Struct, frozen=True, kw_only=True):
    """One question with its many days and thresholds; ``conid`` is its underlying."""

    conid: int
    symbol: str
    name: str
    exchange: str


class EventContract(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to one question.

    Attributes:
        right: ``C`` for yes, ``P`` for no, as IBKR's orders have it.
        expiration: ``YYYYMMDD``.
        label: The threshold in words: ``Above 3.125%``.
    """

    conid: int
    right: str
    expiration: str
    strike: float
    label: str


class EventDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What an event contract asks. ``payout`` in the contract's currency."""

    question: str
    market: str
    conid_yes: int | None
    conid_no: int | None
    payout: float | None


def category_tree(body: object) -> tuple[EventMarket, ...]:
    """``/forecast/category/tree``: the markets of all categories, each once.

    Raises:
        WireError: Not an object, or an error.
    """
    found: dict[int, EventMarket] = {}
    categories = fields.mapping(
        fields.mapping(body, "category/tree").get("categories"), "category/tree: categories"
    )
    for category in categories.values():
        for entry in fields.rows(category.get("markets") if isinstance(category, dict) else None):
            row = entry if isinstance(entry, dict) else {}
            conid = fields.lenient(fields.conid, row.get("conid"), "conid")
            symbol = fields.text(row.get("symbol"))
            if conid and symbol:
                found[conid] = EventMarket(
                    conid=conid,
                    symbol=symbol,
                    name=fields.text(row.get("name")) or "",
                    exchange=fields.text(row.get("exchange")) or "",
                )
    return tuple(found.values())


def event_market(body: object) -> tuple[EventContract, ...]:
    """``/forecast/contract/market``: the contracts of a market.

    Raises:
        WireError: Not an object, an error, or a contract that lacks id, side, day or threshold.
    """
    rows = fields.array(
        fields.mapping(body, "contract/market").get("contracts"), "contract/market: contracts"
    )
    return fields.each(rows, _contract, None)


def _contract(item: object) -> EventContract:
    row = item if isinstance(item, dict) else {}
    day = fields.text(row.get("expiration")) or ""
    return EventContract(
        conid=fields.required(fields.conid(row.get("conid")), "contract/market: conid"),
        right=fields.required(_RIGHTS.get(fields.text(row.get("side")) or ""), "contract/market: side"),
        expiration=fields.required(day if _DAY.fullmatch(day) else None, "contract/market: expiration"),
        strike=fields.required(fields.amount(row.get("strike"), "strike"), "contract/market: strike"),
        label=fields.text(row.get("strike_label")) or "",
    )


def event_details(body: object) -> EventDetails:
    """``/forecast/contract/details``.

    Raises:
        WireError: Not an object, or an error.
    """
    row = fields.mapping(body, "contract/details")
    return EventDetails(
        question=fields.text(row.get("question")) or "",
        market=fields.text(row.get("market_name")) or "",
        conid_yes=fields.lenient(fields.conid, row.get("conid_yes"), "conid_yes"),
        conid_no=fields.lenient(fields.conid, row.get("conid_no"), "conid_no"),
        payout=fields.lenient(fields.amount, row.get("payout"), "payout"),
    )
