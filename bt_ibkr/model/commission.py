"""What IBKR charges for an order.

Facts, from IBKR's published price lists for the United States (Pro accounts):

* Stocks, *fixed*: 0.005 USD a share, at least 1.00 USD an order, at most 1 % of the trade value; if the
  maximum is below the minimum, the maximum is charged. Exchange and most regulatory fees are included.
* Stocks, *tiered*: 0.0035 USD a share up to 300,000 shares a month, then 0.0020, 0.0015, 0.0010 and 0.0005,
  at least 0.35 USD an order, at most 1 % of the trade value; clearing, exchange and regulatory fees on top.
  What an exchange asks for taking liquidity and pays for adding it differs by venue; the table holds the
  figures of a common one.
* On sales regulators take the SEC's fee on the value and FINRA's trading activity fee on the shares. Both
  rates are changed about once a year.
* Options: 0.65 USD a contract, at least 1.00 USD an order; *tiered* by the contracts of the month: 0.65 up to
  10,000, then 0.50, 0.25 and 0.15. Options below 0.10 cost less at IBKR than here. The options' clearing house takes
  0.025 USD a contract, at most 55 USD a trade; on sales regulators take the SEC's fee on the value and FINRA's on
  the contracts.
* Currency pairs: 0.2 basis points of the trade value, at least 2.00 USD an order.
* Futures and options on them: a flat sum a contract, IBKR's own part (0.85) and the exchange's.
* Cryptocurrencies: 0.18 % of the trade value, at least 1.75 USD an order, at most 1 % of the trade value.
* A combo is charged leg by leg.

An order that executes in parts pays what it would have paid in one: the commission of an execution is
the rounded cost of the order after it less the rounded cost before it. Costs are rounded half up to the
cent, so the parts add up to the rounded whole exactly.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import msgspec

from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import Side

CENT = Decimal("0.01")
ZERO = Decimal(0)


class StockRates(msgspec.Struct, frozen=True, kw_only=True):
    """A price list for stocks, in USD.

    Attributes:
        tiers: ``(shares of the month up to and including which it holds, price a share)``; the last
            bound is ``None``.
        minimum: Per order.
        maximum_fraction: Of the trade value, per order.
        clearing_per_share, clearing_maximum_fraction: Clearing fee and its bound by trade value.
        remove_per_share: What the exchange asks for taking liquidity.
        add_per_share: What it asks for adding liquidity; below 0 it pays.
    """

    tiers: tuple[tuple[Decimal | None, Decimal], ...]
    minimum: Decimal
    maximum_fraction: Decimal
    clearing_per_share: Decimal = ZERO
    clearing_maximum_fraction: Decimal = ZERO
    remove_per_share: Decimal = ZERO
    add_per_share: Decimal = ZERO


class OptionRates(msgspec.Struct, frozen=True, kw_only=True):
    """A price list for options, in USD.

    Attributes:
        tiers: ``(contracts of the month up to and including which it holds, price a contract)``; the last bound is
            ``None``.
        minimum: Per order.
        clearing_per_contract, clearing_maximum: Fee of the options' clearing house and its bound by order.
    """

    tiers: tuple[tuple[Decimal | None, Decimal], ...]
    minimum: Decimal
    clearing_per_contract: Decimal = ZERO
    clearing_maximum: Decimal = ZERO


class CryptoRates(msgspec.Struct, frozen=True, kw_only=True):
    """A price list for cryptocurrencies: a fraction of the trade value, bounded per order (USD, and a fraction)."""

    fraction: Decimal
    minimum: Decimal
    maximum_fraction: Decimal


class RegulatoryRates(msgspec.Struct, frozen=True, kw_only=True):
    """Regulators' fees on sales of US stocks, in USD.

    Attributes:
        sec_fraction: The SEC's fee, of the trade value.
        activity_per_share, activity_maximum: FINRA's trading activity fee and its bound per order.
        activity_per_contract: The same for options.
    """

    sec_fraction: Decimal
    activity_per_share: Decimal
    activity_maximum: Decimal
    activity_per_contract: Decimal = ZERO


FIXED_STOCKS = StockRates(
    tiers=((None, Decimal("0.005")),), minimum=Decimal("1.00"), maximum_fraction=Decimal("0.01")
)
TIERED_STOCKS = StockRates(
    tiers=(
        (Decimal(300_000), Decimal("0.0035")),
        (Decimal(3_000_000), Decimal("0.0020")),
        (Decimal(20_000_000), Decimal("0.0015")),
        (Decimal(100_000_000), Decimal("0.0010")),
        (None, Decimal("0.0005")),
    ),
    minimum=Decimal("0.35"),
    maximum_fraction=Decimal("0.01"),
    clearing_per_share=Decimal("0.00020"),
    clearing_maximum_fraction=Decimal("0.005"),
    remove_per_share=Decimal("0.0030"),
    add_per_share=Decimal("-0.0020"),
)
#: SEC: 20.60 USD a million from April 2026 on; FINRA: as of January 2026.
REGULATORS = RegulatoryRates(
    sec_fraction=Decimal("0.0000206"),
    activity_per_share=Decimal("0.000195"),
    activity_maximum=Decimal("9.79"),
    activity_per_contract=Decimal("0.00329"),
)
FIXED_OPTIONS = OptionRates(tiers=((None, Decimal("0.65")),), minimum=Decimal("1.00"))
TIERED_OPTIONS = OptionRates(
    tiers=(
        (Decimal(10_000), Decimal("0.65")),
        (Decimal(50_000), Decimal("0.50")),
        (Decimal(100_000), Decimal("0.25")),
        (None, Decimal("0.15")),
    ),
    minimum=Decimal("1.00"),
    clearing_per_contract=Decimal("0.025"),
    clearing_maximum=Decimal("55"),
)
CRYPTO = CryptoRates(fraction=Decimal("0.0018"), minimum=Decimal("1.75"), maximum_fraction=Decimal("0.01"))


class OrderProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one order has executed so far.

    Attributes:
        quantity: Executed units.
        value: Sum of quantity, price and multiplier of the executions, in the contract's currency.
        added: How many of the units added liquidity (rested before they executed).
    """

    quantity: Decimal = ZERO
    value: Decimal = ZERO
    added: Decimal = ZERO

    def plus(self, quantity: Decimal, value: Decimal, *, adds_liquidity: bool = False) -> OrderProgress:
        """The progress after one more execution."""
        return OrderProgress(
            quantity=self.quantity + quantity,
            value=self.value + value,
            added=self.added + (quantity if adds_liquidity else ZERO),
        )


class CommissionSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """What each kind of instrument costs.

    Attributes:
        name: ``fixed``, ``tiered`` or ``none``.
        stocks: Price list for stocks and funds; ``None`` charges nothing for anything.
        regulators: Fees on sales of stocks; ``None`` leaves them out.
        options: Price list for options.
        crypto: Price list for cryptocurrencies.
        forex_fraction, forex_minimum: Of the trade value, and per order in USD.
        future_per_contract: Per contract, also of options on futures, the exchange's fees included, in USD.
    """

    name: str
    stocks: StockRates | None
    regulators: RegulatoryRates | None = None
    options: OptionRates = FIXED_OPTIONS
    crypto: CryptoRates = CRYPTO
    forex_fraction: Decimal = Decimal("0.00002")
    forex_minimum: Decimal = Decimal("2.00")
    future_per_contract: Decimal = Decimal("2.25")

    def cost(
        self,
        security_type: SecurityType,
        side: Side,
        progress: OrderProgress,
        *,
        month_volume: Decimal = ZERO,
        per_usd: Decimal = Decimal(1),
    ) -> Decimal:
        """What an order costs as far as it has executed, rounded to the cent.

        Args:
            security_type: Of the contract. What no list names is charged as futures are.
            side: Regulators charge sales only.
            progress: What has executed.
            month_volume: Shares, or contracts, traded in the month before this order (tiers).
            per_usd: Units of the contract's currency per USD; fixed sums are quoted in USD.

        Returns:
            The cost in the contract's currency; below 0 if rebates outweigh it.
        """
        if self.stocks is None or progress.quantity == 0:
            return ZERO
        if security_type is SecurityType.FOREX:
            exact = max(self.forex_fraction * progress.value, self.forex_minimum * per_usd)
        elif security_type in _STOCK_LIKE:
            exact = _stock_cost(self.stocks, progress, month_volume, per_usd)
            if self.regulators is not None and side is Side.SELL:
                exact += _regulatory_cost(
                    self.regulators, progress, self.regulators.activity_per_share, per_usd
                )
        elif security_type is SecurityType.OPTION:
            exact = _option_cost(self.options, progress, month_volume) * per_usd
            if self.regulators is not None and side is Side.SELL:
                exact += _regulatory_cost(
                    self.regulators, progress, self.regulators.activity_per_contract, per_usd
                )
        elif security_type is SecurityType.CRYPTO:
            exact = max(self.crypto.fraction * progress.value, self.crypto.minimum * per_usd)
            exact = min(exact, self.crypto.maximum_fraction * progress.value)
        else:
            exact = self.future_per_contract * progress.quantity * per_usd
        return exact.quantize(CENT, rounding=ROUND_HALF_UP)

    def execution_cost(
        self,
        security_type: SecurityType,
        side: Side,
        before: OrderProgress,
        after: OrderProgress,
        *,
        month_volume: Decimal = ZERO,
        per_usd: Decimal = Decimal(1),
    ) -> Decimal:
        """What one execution of an order costs: the order's cost after it less its cost before it.

        ``month_volume`` and ``per_usd`` must be the same for all executions of an order.
        """
        return self.cost(security_type, side, after, month_volume=month_volume, per_usd=per_usd) - self.cost(
            security_type, side, before, month_volume=month_volume, per_usd=per_usd
        )


_STOCK_LIKE = frozenset(
    {SecurityType.STOCK, SecurityType.FUND, SecurityType.WARRANT, SecurityType.CFD, SecurityType.UNKNOWN}
)


def _stock_cost(
    rates: StockRates, progress: OrderProgress, month_volume: Decimal, per_usd: Decimal
) -> Decimal:
    quantity, value = progress.quantity, progress.value
    commission = max(_tier_price(rates.tiers, quantity, month_volume) * per_usd, rates.minimum * per_usd)
    commission = min(commission, rates.maximum_fraction * value)
    clearing = min(rates.clearing_per_share * quantity * per_usd, rates.clearing_maximum_fraction * value)
    exchange = (
        rates.remove_per_share * (quantity - progress.added) + rates.add_per_share * progress.added
    ) * per_usd
    return commission + clearing + exchange


def _option_cost(rates: OptionRates, progress: OrderProgress, month_volume: Decimal) -> Decimal:
    quantity = progress.quantity
    commission = max(_tier_price(rates.tiers, quantity, month_volume), rates.minimum)
    return commission + min(rates.clearing_per_contract * quantity, rates.clearing_maximum)


def _tier_price(
    tiers: tuple[tuple[Decimal | None, Decimal], ...], quantity: Decimal, month_volume: Decimal
) -> Decimal:
    """Price of ``quantity`` units that follow ``month_volume`` units; each pays its own tier."""
    total, done, end = ZERO, month_volume, month_volume + quantity
    for bound, price in tiers:
        upper = end if bound is None else min(end, bound)
        if upper > done:
            total += (upper - done) * price
            done = upper
    return total


def _regulatory_cost(
    rates: RegulatoryRates, progress: OrderProgress, activity_per_unit: Decimal, per_usd: Decimal
) -> Decimal:
    activity = min(activity_per_unit * progress.quantity, rates.activity_maximum)
    return rates.sec_fraction * progress.value + activity * per_usd


_SCHEDULES = {
    "fixed": CommissionSchedule(name="fixed", stocks=FIXED_STOCKS),
    "tiered": CommissionSchedule(
        name="tiered", stocks=TIERED_STOCKS, regulators=REGULATORS, options=TIERED_OPTIONS
    ),
    "none": CommissionSchedule(name="none", stocks=None),
}
SCHEDULE_NAMES = tuple(_SCHEDULES)


def commission_schedule(name: str, *, regulatory: bool | None = None) -> CommissionSchedule:
    """The schedule of that name.

    Args:
        name: ``fixed``, ``tiered`` or ``none``.
        regulatory: Whether regulators' fees are passed on; by default only ``tiered`` does.

    Raises:
        UsageError: No schedule has that name.
    """
    schedule = _SCHEDULES.get(name)
    if schedule is None:
        raise UsageError(
            f"Commission schedule {name!r} is not known.", remedy=f"Use one of: {', '.join(SCHEDULE_NAMES)}."
        )
    if regulatory is None or schedule.stocks is None:
        return schedule
    return msgspec.structs.replace(schedule, regulators=REGULATORS if regulatory else None)
