"""Executions: what they cost, how they are booked, and their record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.exchange.admission import Charges
from bt_ibkr.emulator.exchange.book import Working
from bt_ibkr.emulator.types import EmulatedExecution

#: Ids look like those of the recorded frames and follow from the seed.
_EXECUTION_PREFIX = 0x0001390E
_EXECUTION_COUNTER = 0x69F21453


class Settlement:
    """The record of all executions.

    Args:
        accounts: By id.
        charges: What executions cost.
        seed: Ids follow from it.
        count: Gives the place in the order of everything that happens.

    Attributes:
        executions: All of them, in order.
    """

    def __init__(
        self, accounts: Mapping[str, Account], charges: Charges, *, seed: int, count: Callable[[], int]
    ) -> None:
        self._accounts = accounts
        self._charges = charges
        self._prefix = (_EXECUTION_PREFIX + seed) & 0xFFFFFFFF
        self._count = count
        self.executions: list[EmulatedExecution] = []

    def fill(
        self, working: Working, quantity: Decimal, price: float, *, adds_liquidity: bool, now_ns: int
    ) -> list[EmulatedExecution]:
        """Charge for and book a part of an order; its figures follow, its status does not."""
        order, contract = working.order, working.instrument.contract
        value = quantity * exact(price) * exact(contract.multiplier)
        after = working.progress.plus(quantity, value, adds_liquidity=adds_liquidity)
        commission = self._charges.charge(working, after)
        working.progress = after
        order.filled += quantity
        order.average_price = float(after.value / exact(contract.multiplier) / order.filled)
        order.commission = float(exact(order.commission) + commission)
        return [self.book(working, quantity, price, commission, now_ns)]

    def book(
        self, working: Working, quantity: Decimal, price: float, commission: Decimal, now_ns: int
    ) -> EmulatedExecution:
        """Book an execution of an order in its account and write it down; nobody is told."""
        order, spec, contract = working.order, working.order.spec, working.instrument.contract
        account = self._accounts[spec.account]
        position = account.execute(working.instrument, spec.side, quantity, price, commission)
        number = len(self.executions)
        execution = EmulatedExecution(
            execution_id=f"{self._prefix:08x}.{_EXECUTION_COUNTER + number:08x}.01.01",
            order_id=order.order_id,
            account=spec.account,
            conid=spec.conid,
            side=spec.side,
            quantity=quantity,
            price=price,
            commission=float(commission),
            time_ns=now_ns,
            exchange=contract.listing_exchange or contract.exchange
            if spec.exchange == "SMART"
            else spec.exchange,
            client_order_id=spec.client_order_id,
            position_after=position,
            sequence=self._count(),
        )
        self.executions.append(execution)
        return execution
