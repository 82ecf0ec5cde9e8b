"""Executions: what they cost, how they are booked, and their record.

A combo's execution is told as the TWS API tells it: first an envelope with the combo's own price and without a
commission, which changes no position, then one execution for each leg; their ids share all but the third part.
An order for a group is executed for each of its accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

import msgspec

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.accounts.valuation import Valuation, exact
from bt_ibkr.emulator.exchange.admission import Charges
from bt_ibkr.emulator.exchange.allocation import divide
from bt_ibkr.emulator.exchange.book import Working
from bt_ibkr.emulator.types import EmulatedExecution, Instrument, opposite
from bt_ibkr.model.contract import Leg
from bt_ibkr.model.order import Side

#: Ids look like those of the recorded frames and follow from the seed.
_EXECUTION_PREFIX = 0x0001390E
_EXECUTION_COUNTER = 0x69F21453
ZERO = Decimal(0)


class _Trade(msgspec.Struct, frozen=True):
    """A part of an execution: one account's, in one instrument."""

    account: str
    instrument: Instrument
    side: Side
    quantity: Decimal
    price: float
    part: int


class Settlement:
    """The record of all executions.

    Args:
        accounts: By id.
        charges: What executions cost.
        valuation: Present prices: a combo's price is divided among its legs by them.
        seed: Ids follow from it.
        count: Gives the place in the order of everything that happens.

    Attributes:
        executions: All of them, in order.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        charges: Charges,
        valuation: Valuation,
        *,
        seed: int,
        count: Callable[[], int],
    ) -> None:
        self._accounts = accounts
        self._charges = charges
        self._valuation = valuation
        self._prefix = (_EXECUTION_PREFIX + seed) & 0xFFFFFFFF
        self._count = count
        self.executions: list[EmulatedExecution] = []

    def fill(
        self, working: Working, quantity: Decimal, price: float, *, adds_liquidity: bool, now_ns: int
    ) -> list[EmulatedExecution]:
        """Charge for and book a part of an order; its figures follow, its status does not."""
        order, contract = working.order, working.instrument.contract
        value = quantity * exact(price) * exact(contract.multiplier)
        parts = self._divided(working, quantity)
        working.progress = after = working.progress.plus(quantity, value, adds_liquidity=adds_liquidity)
        order.filled += quantity
        order.average_price = float(after.value / exact(contract.multiplier) / order.filled)
        made: list[EmulatedExecution] = []
        for account, size in parts.items():
            number = len(self.executions)
            for trade in self._trades(working, account, size, price):
                commission = ZERO
                if not trade.instrument.contract.legs:
                    commission = self._charges.charge(
                        working,
                        account,
                        trade.instrument,
                        trade.side,
                        trade.quantity,
                        trade.quantity * exact(trade.price) * exact(trade.instrument.contract.multiplier),
                        adds_liquidity=adds_liquidity,
                    )
                order.commission = float(exact(order.commission) + commission)
                made.append(self._book(working, trade, commission, number, now_ns))
        return made

    def book(
        self, working: Working, quantity: Decimal, price: float, commission: Decimal, now_ns: int
    ) -> EmulatedExecution:
        """Book an execution of an order in its account and write it down; nobody is told.

        Of a combo, what is returned is the envelope; the executions of the legs are in the record. A group's
        first account gets it all.
        """
        account, number = working.order.spec.shares()[0].account, len(self.executions)
        trades = self._trades(working, account, quantity, price)
        made = [
            self._book(working, trade, commission if trade is trades[-1] else ZERO, number, now_ns)
            for trade in trades
        ]
        return made[0]

    def _divided(self, working: Working, quantity: Decimal) -> dict[str, Decimal]:
        """Who gets how much of an execution."""
        spec = working.order.spec
        if not spec.allocation:
            return {spec.account: quantity}
        key = (working.instrument.contract.legs or (working.instrument.contract,))[0]
        ratio = abs(key.ratio) if isinstance(key, Leg) else 1
        had = {
            share.account: progress.quantity / ratio
            for share in spec.allocation
            if (progress := working.paid.get((share.account, key.conid))) is not None
        }
        return divide(quantity, spec.allocation, spec.quantity, had, working.step)

    def _trades(self, working: Working, account: str, quantity: Decimal, price: float) -> list[_Trade]:
        """What is booked for an execution: itself, and of a combo then its legs."""
        side, instrument = working.order.spec.side, working.instrument
        trades = [_Trade(account, instrument, side, quantity, price, 1)]
        for part, (leg, each, leg_price) in enumerate(self._leg_prices(instrument, side, price), start=2):
            leg_side = side if leg.ratio > 0 else opposite(side)
            trades.append(_Trade(account, each, leg_side, quantity * abs(leg.ratio), leg_price, part))
        return trades

    def _leg_prices(self, combo: Instrument, side: Side, price: float) -> list[tuple[Leg, Instrument, float]]:
        """Each leg at its own bid or ask; one leg bears what the combo's price differs from their sum.

        That is a leg with a ratio of 1 if there is one, and of these the dearest, so that the prices of the
        legs add up to the combo's.
        """
        scale = exact(combo.contract.multiplier)
        found: list[tuple[Leg, Instrument, Decimal]] = []
        for leg, part in self._valuation.legs(combo):
            quote, middle = self._valuation.quote(leg.conid), self._valuation.price(leg.conid)
            buys = (leg.ratio > 0) is (side is Side.BUY)
            touch = None if quote is None else quote.ask if buys else quote.bid
            found.append((leg, part, exact(touch) if touch is not None else middle or ZERO))
        if not found:
            return []

        def points(leg: Leg, part: Instrument) -> Decimal:
            return leg.ratio * exact(part.contract.multiplier) / scale

        missing = exact(price) - sum((points(leg, part) * at for leg, part, at in found), ZERO)
        bearer = max(range(len(found)), key=lambda k: (abs(found[k][0].ratio) == 1, found[k][2]))
        leg, part, at = found[bearer]
        found[bearer] = leg, part, at + missing / points(leg, part)
        return [(leg, part, float(round(at, 10))) for leg, part, at in found]

    def _book(
        self, working: Working, trade: _Trade, commission: Decimal, number: int, now_ns: int
    ) -> EmulatedExecution:
        order, spec, contract = working.order, working.order.spec, trade.instrument.contract
        envelope = bool(contract.legs)
        position = ZERO
        if not envelope:
            position = self._accounts[trade.account].execute(
                trade.instrument,
                trade.side,
                trade.quantity,
                trade.price,
                commission,
                conversion=spec.currency_conversion,
            )
        execution = EmulatedExecution(
            execution_id=f"{self._prefix:08x}.{_EXECUTION_COUNTER + number:08x}.{trade.part:02d}.01",
            order_id=order.order_id,
            account=trade.account,
            conid=contract.conid,
            side=trade.side,
            quantity=trade.quantity,
            price=trade.price,
            commission=float(commission),
            time_ns=now_ns,
            exchange=contract.listing_exchange or contract.exchange
            if spec.exchange == "SMART"
            else spec.exchange,
            client_order_id=spec.client_order_id,
            position_after=position,
            sequence=self._count(),
            envelope=envelope,
        )
        self.executions.append(execution)
        return execution
