"""Accounts and orders as plain values, which can be compared and written as JSON."""

from __future__ import annotations

from typing import Any

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.types import EmulatedOrder


def plain_account(account: Account) -> dict[str, Any]:
    """Cash, positions and commissions; money and quantities as text."""
    return {
        "cash": {code: str(amount) for code, amount in account.cash_by_currency().items()},
        "positions": {
            str(position.conid): {
                "quantity": str(position.quantity),
                "average_price": position.average_price,
                "average_cost": position.average_cost,
                "realized_pnl": position.realized_pnl,
            }
            for position in account.positions()
        },
        "commissions": {code: str(amount) for code, amount in account.commissions.items()},
        "net_liquidation": str(account.net_liquidation()),
    }


def plain_order(order: EmulatedOrder) -> dict[str, Any]:
    """An order as it stands."""
    spec = order.spec
    return {
        "order_id": order.order_id,
        "account": spec.account,
        "conid": spec.conid,
        "side": spec.side.value,
        "order_type": spec.order_type.value,
        "quantity": str(spec.quantity),
        "limit_price": spec.limit_price,
        "stop_price": order.stop_price,
        "time_in_force": spec.time_in_force.value,
        "client_order_id": spec.client_order_id,
        "parent_client_id": spec.parent_client_id,
        "origin": spec.origin,
        "parent_id": order.parent_id,
        "oca_group": order.oca_group,
        "status": order.status.value,
        "filled": str(order.filled),
        "average_price": order.average_price,
        "commission": order.commission,
        "created_ns": order.created_ns,
        "updated_ns": order.updated_ns,
        "reason": order.reason,
    }
