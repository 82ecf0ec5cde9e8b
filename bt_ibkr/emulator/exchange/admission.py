"""Whether an order may enter, and what its executions cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal

import msgspec

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.accounts.margin import Intended, Margin, intended
from bt_ibkr.emulator.accounts.valuation import Valuation, exact
from bt_ibkr.emulator.exchange import checks
from bt_ibkr.emulator.exchange.book import Working
from bt_ibkr.emulator.types import Instrument, OrderSpec, opposite
from bt_ibkr.model.commission import CommissionSchedule, OrderProgress
from bt_ibkr.model.order import Side

ZERO = Decimal(0)


class Charges:
    """Commissions of executions.

    Args:
        schedule: The price list.
        valuation: Fixed sums are quoted in USD; they are charged in the contract's currency.
    """

    def __init__(self, schedule: CommissionSchedule, valuation: Valuation) -> None:
        self._schedule = schedule
        self._valuation = valuation
        self._traded: dict[str, Decimal] = {}

    def note(self, account: str, quantity: Decimal) -> None:
        """An account has traded so much before."""
        self._traded[account] = self._traded.get(account, ZERO) + quantity

    def estimate(self, spec: OrderSpec, instrument: Instrument, price: Decimal | None) -> Decimal:
        """What the whole order would cost at that price."""
        if not instrument.contract.legs:
            value = ZERO if price is None else price * spec.quantity * exact(instrument.contract.multiplier)
            return self._whole(spec, instrument, spec.side, spec.quantity, value)
        total = ZERO
        for leg, part in self._valuation.legs(instrument):
            quantity = spec.quantity * abs(leg.ratio)
            worth = (self._valuation.price(leg.conid) or ZERO) * quantity * exact(part.contract.multiplier)
            side = spec.side if leg.ratio > 0 else opposite(spec.side)
            total += self._whole(spec, part, side, quantity, worth)
        return total

    def _whole(
        self, spec: OrderSpec, instrument: Instrument, side: Side, quantity: Decimal, value: Decimal
    ) -> Decimal:
        return self._schedule.cost(
            instrument.contract.security_type,
            side,
            OrderProgress(quantity=quantity, value=value),
            month_volume=self._traded.get(spec.account, ZERO),
            per_usd=self._valuation.rate("USD", instrument.contract.currency),
        )

    def charge(
        self,
        working: Working,
        account: str,
        instrument: Instrument,
        side: Side,
        quantity: Decimal,
        value: Decimal,
        *,
        adds_liquidity: bool,
    ) -> Decimal:
        """What an execution of an order costs an account, on top of what it has been charged for the order."""
        contract = instrument.contract
        traded = self._traded.get(account, ZERO)
        if account not in working.terms:
            working.terms[account] = self._valuation.rate("USD", contract.currency), traded
        per_usd, month_volume = working.terms[account]
        self._traded[account] = traded + quantity
        key = (account, contract.conid)
        before = working.paid.get(key, OrderProgress())
        after = working.paid[key] = before.plus(quantity, value, adds_liquidity=adds_liquidity)
        return self._schedule.execution_cost(
            contract.security_type, side, before, after, month_volume=month_volume, per_usd=per_usd
        )


class Admission:
    """Decides over orders before they exist.

    Args:
        accounts: By id.
        margin: Whether an account can afford an order.
        valuation: Present prices and rates.
        charges: What an order would cost.
    """

    def __init__(
        self, accounts: Mapping[str, Account], margin: Margin, valuation: Valuation, charges: Charges
    ) -> None:
        self._accounts = accounts
        self._margin = margin
        self._valuation = valuation
        self._charges = charges

    def form_error(self, spec: OrderSpec, instrument: Instrument | None) -> str | None:
        """Why an order of that form is refused; ``None`` if it is not."""
        for share in spec.shares():
            if share.account not in self._accounts:
                return f"Bad Request: accountId is not valid: {share.account}"
        if instrument is None:
            return f"no sec defs returned for conid {spec.conid}"
        if not self._valuation.knows(instrument.contract.currency):
            return f"No exchange rate is known for {instrument.contract.currency}."
        return checks.refusal(spec, instrument)

    def funds_error(
        self,
        spec: OrderSpec,
        instrument: Instrument,
        live: Collection[Working],
        *,
        group: str,
        without: int = 0,
    ) -> str | None:
        """Why the account cannot afford the order beside its other working ones; ``None`` if it can.

        Args:
            spec: The order; of one that is modified, what is left of it.
            instrument: Its instrument.
            live: All working orders.
            group: Members of this group are left out, as only one of them will fill.
            without: The order that is modified.
        """
        if self._margin.policy == "off":
            return None
        for share in spec.shares():
            others = [
                part
                for working in live
                if working.order.active
                and working.order.order_id != without
                and not (group and working.order.oca_group == group)
                for part in self._of_account(intended(working.order), working.order.spec, share.account)
            ]
            own = self.intended(spec, instrument)
            error = self._margin.refusal(
                self._accounts[share.account], self._of_account(own, spec, share.account)[0], others
            )
            if error is not None:
                return error
        return None

    @staticmethod
    def _of_account(whole: Intended, spec: OrderSpec, account: str) -> list[Intended]:
        """The account's part of an order; none if it has none."""
        shares = spec.shares()
        total = sum((share.weight for share in shares), ZERO)
        return [
            msgspec.structs.replace(
                whole,
                quantity=whole.quantity * share.weight / total,
                commission=whole.commission * share.weight / total,
            )
            for share in shares
            if share.account == account
        ]

    def intended(self, spec: OrderSpec, instrument: Instrument) -> Intended:
        """The order as margin sees it, at its own price or the market's."""
        own = spec.limit_price if spec.limit_price is not None else spec.stop_price
        price = exact(own) if own is not None else self._valuation.price(spec.conid)
        return Intended(
            conid=spec.conid,
            side=spec.side,
            quantity=spec.quantity,
            price=price,
            commission=self._charges.estimate(spec, instrument, price),
            legs=spec.legs,
        )
