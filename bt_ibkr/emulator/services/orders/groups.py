"""Whose an order is: an account's, or that of an adviser's group, which is divided among its accounts.

All accounts but the master belong to every group, ``All`` included; shares are equal unless ``allocationMethod``
says that they go by net liquidation value or by available funds.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from bt_ibkr.emulator.services.orders.ticket_form import business
from bt_ibkr.emulator.types import Share

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_METHODS = {
    "": "equal",
    "EQUALQUANTITY": "equal",
    "EQUAL": "equal",
    "E": "equal",
    "NETLIQ": "net",
    "N": "net",
    "AVAILABLEEQUITY": "available",
    "A": "available",
}


def account_or_group(core: Core, name: str) -> str:
    """``name`` if it is an account of ours or a group.

    Raises:
        ApiError: 400, as the real server words it for accounts.
    """
    return name if is_group(core, name) else core.account(name)


def is_group(core: Core, name: str) -> bool:
    settings = core.settings
    return bool(settings.fa_master) and name in ("All", *settings.fa_groups)


def shares(core: Core, name: str, method: str) -> tuple[Share, ...]:
    """Who gets how much of an order; nobody but the account itself of an ordinary one.

    Raises:
        ApiError: The method is not known, or the group holds nothing to go by.
    """
    if not is_group(core, name):
        return ()
    chosen = _METHODS.get(method.upper())
    if chosen is None:
        raise business(f"Invalid allocation method {method}")
    found = []
    for account in core.session.accounts:
        if account != core.settings.fa_master:
            figures = core.engine.margin(account)
            weight = {
                "equal": Decimal(1),
                "net": figures.equity,
                "available": figures.equity - figures.initial,
            }[chosen]
            found.append(Share(account, max(weight, Decimal(0))))
    if not sum((share.weight for share in found), Decimal(0)):
        raise business(f"Group {name} has no account to allocate to")
    return tuple(found)


def visible(core: Core, account: str) -> str | None:
    """Whose orders and executions an account sees: its own; an adviser's master those of all (``None``)."""
    return None if core.settings.fa_master == account else account
