"""What a strategy process knows of its orders, to find what a restarted hub has to tell that it has not heard.

Pure: events in, and after a restart the events that are missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from bt_ibkr.connection.interface import (
    AccountEvent,
    AccountSnapshot,
    CommissionReported,
    ExecutionReported,
    LedgerChanged,
    OrderChanged,
    OrderFailed,
    OrderModified,
    OrderPlaced,
    Reconciled,
    TradingChanged,
)
from bt_ibkr.errors import OrderRefusedError, OutcomeUnknownError
from bt_ibkr.hub.requests import CaughtUp, OrderKnown
from bt_ibkr.model.intent import ENDED, OrderIntent, OrderState
from bt_ibkr.model.order import DONE, Execution, OrderReport, OrderStatus, OrderTicket
from bt_ibkr.services.executions import trade_of

_STATUS = {
    OrderState.WORKING: OrderStatus.SUBMITTED,
    OrderState.FILLED: OrderStatus.FILLED,
    OrderState.CANCELLED: OrderStatus.CANCELLED,
    OrderState.EXPIRED: OrderStatus.CANCELLED,
}


class _Followed:
    __slots__ = ("account", "ended", "executions", "order_id", "ticket")

    def __init__(self, ticket: OrderTicket) -> None:
        self.account = ticket.account
        self.ticket = ticket
        self.order_id: str | None = None
        self.ended = False
        #: As told, by id.
        self.executions: dict[str, Execution] = {}

    def corrected(self, execution: Execution) -> Execution | None:
        """The execution that was told and that this one takes the place of."""
        trade, report = trade_of(execution.execution_id)
        for told in self.executions.values():
            other, before = trade_of(told.execution_id)
            if other == trade and before < report:
                return told
        return None


class Following:
    """The orders of one strategy process that may still change."""

    def __init__(self) -> None:
        self._orders: dict[str, _Followed] = {}

    def attached(self, snapshot: AccountSnapshot) -> None:
        """Orders of earlier runs."""
        for standing in snapshot.standing:
            followed = self._orders[standing.intent.key] = _Followed(standing.intent.ticket)
            followed.order_id = standing.order_id
            followed.ended = not standing.open
            followed.executions = {one.execution_id: one for one in standing.executions}

    def placed(self, intents: Iterable[OrderIntent]) -> None:
        """Orders of this run, about to be sent."""
        for intent in intents:
            self._orders[intent.key] = _Followed(intent.ticket)

    def take(self, event: AccountEvent) -> None:
        """Something was told."""
        if isinstance(event, ExecutionReported | CommissionReported):
            key = event.key if isinstance(event, ExecutionReported) else self._whose(event.execution)
            followed = self._orders.get(key or "")
            if followed is not None:
                followed.executions[event.execution.execution_id] = event.execution
                if isinstance(event, ExecutionReported) and event.replaces is not None:
                    followed.executions.pop(event.replaces.execution_id, None)
            return
        key = getattr(event, "key", None)
        followed = self._orders.get(key or "")
        if followed is None:
            return
        if isinstance(event, OrderPlaced):
            followed.order_id = event.order_id
        elif isinstance(event, OrderModified):
            followed.ticket = event.ticket
        elif isinstance(event, OrderFailed):
            followed.ended = not isinstance(event.error, OutcomeUnknownError)
        elif isinstance(event, OrderChanged) and event.report.status is not None:
            followed.ended = event.report.status in DONE

    def _whose(self, execution: Execution) -> str | None:
        for key, followed in list(self._orders.items()):
            if execution.execution_id in followed.executions:
                return key
        return None

    def keys(self, account: str) -> tuple[str, ...]:
        """Orders of an account of which there may be news: also ended ones, whose commissions may be missing."""
        return tuple(
            key
            for key, one in list(self._orders.items())
            if one.account == account
            and (not one.ended or any(told.commission is None for told in one.executions.values()))
        )

    def news(
        self, account: str, caught: CaughtUp, unanswered: frozenset[str], now_ns: int
    ) -> list[AccountEvent]:
        """What was missed, as the events it would have been told by.

        Args:
            account: Whose.
            caught: What the new hub knows.
            unanswered: Keys of submissions that are asked again.
            now_ns: Market time.
        """
        found: list[AccountEvent] = []
        known = {order.key: order for order in caught.orders}
        executions: dict[str, list[Execution]] = {}
        for key, execution in caught.executions:
            executions.setdefault(key, []).append(execution)
        for key in self.keys(account):
            followed = self._orders[key]
            order = known.get(key)
            if order is None:
                if key not in unanswered and not followed.ended:
                    problem = OutcomeUnknownError(
                        f"The hub that took order {key} is gone, and the record of the new one does not have it.",
                        remedy="Look at the account before you repeat it.",
                    )
                    found.append(OrderFailed(key, problem))
                continue
            found.extend(self._order_news(followed, order, executions.get(key, [])))
        for event in found:
            self.take(event)
        found.append(LedgerChanged(account, caught.ledger))
        found.append(
            Reconciled(
                account=account,
                cause="the hub was restarted",
                time_ns=now_ns,
                complete=True,
                positions=caught.positions,
            )
        )
        if caught.trading is not None:
            found.append(TradingChanged(caught.trading))
        return found

    def _order_news(
        self, followed: _Followed, order: OrderKnown, executions: list[Execution]
    ) -> Iterable[AccountEvent]:
        key = order.key
        if order.order_id is not None and order.order_id != followed.order_id:
            yield OrderPlaced(key, order.order_id)
        if order.ticket != followed.ticket:
            yield OrderModified(key, order.ticket)
        for execution in executions:
            told = followed.executions.get(execution.execution_id)
            if told is None:
                yield ExecutionReported(execution, key, followed.corrected(execution))
            elif execution.commission != told.commission:
                yield CommissionReported(execution)
        if followed.ended or order.state not in ENDED:
            return
        if order.state in (OrderState.REJECTED, OrderState.ABSENT):
            yield OrderFailed(key, OrderRefusedError(order.text or "It was refused."))
            return
        filled = sum(
            (one.quantity for one in executions if one.conid == order.ticket.contract_id), Decimal(0)
        )
        yield OrderChanged(
            OrderReport(
                order_id=order.order_id or "",
                account=followed.account,
                conid=order.ticket.contract_id,
                status=_STATUS[order.state],
                filled_quantity=filled,
                order_ref=key,
            ),
            key,
        )
