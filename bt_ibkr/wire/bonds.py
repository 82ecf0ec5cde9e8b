"""``/iserver/secdef/info`` of an issuer's bonds."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from bt_ibkr.wire import fields

_NUMBER: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,9})?", re.ASCII)


class BondListing(msgspec.Struct, frozen=True, kw_only=True):
    """One bond.

    Attributes:
        maturity: ``YYYYMMDD``, where IBKR tells it.
        coupon: Percent; ``None`` where there is none, or IBKR does not tell a number.
        text: IBKR's own description.
    """

    conid: int
    maturity: str | None
    coupon: float | None
    currency: str
    text: str


def bond_listings(body: object) -> tuple[BondListing, ...]:
    """The bonds of one issuer.

    Raises:
        WireError: Not an array of objects, an error, or a bond without a conid.
    """
    return fields.each(fields.array(body, "secdef/info"), _bond, None)


def _bond(item: object) -> BondListing:
    row = item if isinstance(item, dict) else {}
    day = fields.text(row.get("maturityDate")) or ""
    told = row.get("coupon")
    number = _NUMBER.search(fields.text(told) or "") if not isinstance(told, float) else None
    words = (fields.text(row.get(key)) for key in ("companyName", "desc1", "desc2"))
    return BondListing(
        conid=fields.required(fields.conid(row.get("conid")), "secdef/info: conid"),
        maturity=day if len(day) == 8 and day.isdigit() else None,
        coupon=float(told) if isinstance(told, float) else None if number is None else float(number[0]),
        currency=fields.text(row.get("currency")) or "",
        text=" ".join(word for word in words if word),
    )
