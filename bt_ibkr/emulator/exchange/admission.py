"""Whether an order may enter, and what its executions cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.accounts.margin import Intended, Margin, intended
from bt_ibkr.emulator.accounts.valuation import Valuation, exact
from bt_ibkr.emulator.exchange import checks
from bt_ibkr.emulator.exchange.book import Working
from bt_ibkr.emulator.types import Instrument, OrderSpec
from bt_ibkr.model.commission import CommissionSchedule, OrderProgress

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

    def estimate(self, spec: OrderSpec, instrument: Instrument, price: Decimal | None) -> Decimal:
        """What the whole order would cost at that price."""
        value = ZERO if price is None else price * spec.quantity * exact(instrument.contract.multiplier)
        return self._schedule.cost(
            instrument.contract.security_type,
            spec.side,
            OrderProgress(quantity=spec.quantity, value=value),
            month_volume=self._traded.get(spec.account, ZERO),
            per_usd=self._valuation.rate("USD", instrument.contract.currency),
        )

    def charge(self, working: Working, after: OrderProgress) -> Decimal:
        """What the execution costs that brings the order to ``after``."""
        spec, contract = working.order.spec, working.instrument.contract
        traded = self._traded.get(spec.account, ZERO)
        if working.per_usd is None:
            working.per_usd = self._valuation.rate("USD", contract.currency)
            working.month_volume = traded
        self._traded[spec.account] = traded + after.quantity - working.progress.quantity
        return self._schedule.execution_cost(
            contract.security_type,
            spec.side,
            working.progress,
            after,
            month_volume=working.month_volume,
            per_usd=working.per_usd,
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
        if spec.account not in self._accounts:
            return f"Bad Request: accountId is not valid: {spec.account}"
        if instrument is None:
            return f"no sec defs returned for conid {spec.conid}"
        if not self._valuation.knows(instrument.contract.currency):
            return f"No exchange rate is known for {instrument.contract.currency}."
        return checks.refusal(spec, instrument)

    def funds_error(
        self,
        spec: OrderSpec,
        instrument: Instrument,
        live: Iterable[Working],
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
        others = [
            intended(working.order)
            for working in live
            if working.order.active
            and working.order.spec.account == spec.account
            and working.order.order_id != without
            and not (group and working.order.oca_group == group)
        ]
        return self._margin.refusal(self._accounts[spec.account], self.intended(spec, instrument), others)

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
        )
