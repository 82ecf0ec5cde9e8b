"""What happens to positions without a trade: exercise, assignment, expiry, splits, new names and conids.

None of it is an execution: positions and cash change, ``trades`` and ``str`` tell nothing. Working orders on the
instrument are cancelled by the system, as IBKR does at a split.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.accounts.valuation import exact, market_price
from bt_ibkr.emulator.admin import orders
from bt_ibkr.emulator.market.adjusted import AdjustedTape, scaled
from bt_ibkr.emulator.types import Instrument, MarketEvent
from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import DONE, Side

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Ending = Literal["exercise", "assignment", "expiry"]
_OPTIONS = frozenset({SecurityType.OPTION, SecurityType.FUTURE_OPTION, SecurityType.WARRANT})
_DAY_PRICES = ("open", "high", "low", "close", "prior_close")


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the market itself, which does not follow from the tape.

    Attributes:
        tape_events: After how many events of the tape.
        ratio: Of a split: numerator and denominator.
        symbol, new_conid: Of a change of name.
    """

    tape_events: int
    conid: int
    ratio: tuple[int, int] | None = None
    symbol: str = ""
    new_conid: int = 0


class CorporateActions:
    """All that happened of it, and how to take back what the universe was told.

    Attributes:
        record: What happened, in order.
        adjustments: What of it changed the market.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._former: list[Instrument] = []
        self._added: list[int] = []
        self.record: list[dict[str, Any]] = []
        self.adjustments: list[Adjustment] = []

    # --- options -----------------------------------------------------------------------------------

    def exercise(
        self, account: str, conid: int, quantity: float | None, how: Ending, underlying: int | None,
        settlement_price: float | None,
    ) -> dict[str, Any]:  # fmt: skip
        """End option positions: for the underlying at the strike, for cash, or for nothing.

        Args:
            account: Whose.
            conid: The option.
            quantity: Contracts; all by default.
            how: ``exercise`` of a long position, ``assignment`` of a short one, ``expiry`` without value.
            underlying: Its conid, where the symbol does not tell.
            settlement_price: Of the underlying: settled in cash for what the option is worth at it.

        Raises:
            UsageError: It is no option, or there is no such position.
        """
        option = self._instrument(conid)
        contract = option.contract
        if (
            contract.security_type not in _OPTIONS
            or contract.strike is None
            or contract.right not in ("C", "P")
        ):
            raise UsageError(f"{contract.describe()} is no option that can be exercised.")
        books = self._core.engine.account(account)
        held = books.quantity(conid)
        size = abs(held) if quantity is None else exact(quantity)
        if (
            not 0 < size <= abs(held)
            or (how == "exercise" and held < 0)
            or (how == "assignment" and held > 0)
        ):
            raise UsageError(f"Account {account} holds {held} of {contract.describe()}: no {how} of {size}.")
        closing = Side.SELL if held > 0 else Side.BUY
        strike, calls = contract.strike, contract.right == "C"
        told: dict[str, Any] = {"kind": how, "account": account, "conid": conid, "quantity": str(size)}
        if how == "expiry" or settlement_price is not None:
            worth = 0.0
            if settlement_price is not None:
                worth = max(settlement_price - strike if calls else strike - settlement_price, 0.0)
            books.execute(option, closing, size, worth, Decimal(0))
            told["settled_at"] = worth
        else:
            other = self._underlying(option, underlying)
            each = 1.0 if contract.security_type is SecurityType.FUTURE_OPTION else contract.multiplier
            units = size * exact(each)
            books.execute(option, closing, size, 0.0, Decimal(0))
            side = Side.BUY if calls is (held > 0) else Side.SELL
            books.execute(other, side, units, strike, Decimal(0))
            told |= {"underlying": other.contract.conid, "units": str(side.sign * units), "strike": strike}
        self._core.engine.tell_account(account)
        return self._note(told)

    def _underlying(self, option: Instrument, conid: int | None) -> Instrument:
        if conid is not None or option.underlying_conid:
            return self._instrument(conid if conid is not None else option.underlying_conid)
        found = [
            one
            for one in self._core.universe.by_symbol(option.contract.symbol)
            if one.contract.security_type not in _OPTIONS
            and one.contract.currency == option.contract.currency
        ]
        if not found:
            raise UsageError(
                f"The universe has no underlying of {option.contract.describe()}.",
                remedy="Name its conid as underlying.",
            )
        return found[0]

    # --- shares ------------------------------------------------------------------------------------

    def split(self, conid: int, numerator: int, denominator: int) -> dict[str, Any]:
        """Make ``numerator`` shares of ``denominator``; fractions are paid out in cash.

        Prices from now on are those after the split; bars of the past stay as they were.

        Raises:
            UsageError: The instrument is not known.
        """
        instrument, ratio = self._instrument(conid), Fraction(numerator, denominator)
        ended = self._end_orders(conid, "The order was cancelled because of a corporate action.")
        self._adjust(conid, ratio, Fraction(repr(instrument.contract.tick_size)))
        events = self._core.engine.tape_events
        self.adjustments.append(Adjustment(tape_events=events, conid=conid, ratio=(numerator, denominator)))
        price = market_price(instrument, self._core.engine.quote(conid))
        paid: dict[str, str] = {}
        for name in self._core.engine.account_ids():
            books = self._core.engine.account(name)
            if books.quantity(conid):
                paid[name] = str(_split_holding(books, instrument, ratio, price))
                self._core.engine.tell_account(name)
        told = {"kind": "split", "conid": conid, "numerator": numerator, "denominator": denominator}
        return self._note(told | {"orders": ended, "cash_in_lieu": paid})

    def _adjust(self, conid: int, ratio: Fraction, tick: Fraction) -> None:
        engine = self._core.engine
        self._tape().split(conid, ratio, tick)
        quote = engine.quote(conid)
        if quote is None:
            return
        now = MarketEvent(
            engine.now_ns, conid, quote.bid, quote.bid_size, quote.ask, quote.ask_size, quote.last, None
        )
        for name in _DAY_PRICES:
            value = getattr(quote, name)
            if value is not None:
                setattr(quote, name, float(Fraction(repr(value)) / ratio))
        quote.volume = float(Fraction(repr(quote.volume)) * ratio)
        engine.inject(scaled(now, ratio, tick))

    def rename(self, conid: int, symbol: str | None, new_conid: int | None) -> dict[str, Any]:
        """Give an instrument another symbol, another conid, or both.

        Raises:
            UsageError: The instrument is not known, or the new conid is taken.
        """
        core, instrument = self._core, self._instrument(conid)
        target = conid if new_conid is None else new_conid
        if target != conid and core.instrument(target) is not None:
            raise UsageError(f"Conid {target} is taken.", remedy="Choose another new_conid.")
        name = symbol or instrument.contract.symbol
        events = core.engine.tape_events
        self.adjustments.append(Adjustment(tape_events=events, conid=conid, symbol=name, new_conid=target))
        ended: list[int] = []
        if target != conid:
            ended = self._end_orders(conid, "The order was cancelled because of a corporate action.")
        self._call(instrument, name, target)
        told = {"kind": "rename", "conid": conid, "symbol": name, "orders": ended}
        if target == conid:
            return self._note(told)
        self._move(conid, target)
        return self._note(told | {"new_conid": target})

    def _call(self, instrument: Instrument, symbol: str, target: int) -> None:
        """Let the universe know the instrument by another name."""
        universe, conid = self._core.universe, instrument.contract.conid
        contract = msgspec.structs.replace(instrument.contract, symbol=symbol, conid=target)
        changed = msgspec.structs.replace(instrument, contract=contract)
        self._former.append(instrument)
        if target == conid:
            universe.replace(changed)
            return
        universe.retire(conid)
        universe.add(changed)
        self._added.append(target)

    def replay(self, change: Adjustment) -> None:
        """Change the market as it was changed before the emulator was started again; positions are as kept."""
        instrument = self._instrument(change.conid)
        self.adjustments.append(change)
        if change.ratio is not None:
            ratio = Fraction(*change.ratio)
            self._adjust(change.conid, ratio, Fraction(repr(instrument.contract.tick_size)))
            return
        self._call(instrument, change.symbol, change.new_conid)
        if change.new_conid != change.conid:
            self._move(change.conid, change.new_conid)

    def _move(self, conid: int, target: int) -> None:
        """Positions, quote and tape go over to another conid."""
        engine = self._core.engine
        quote = engine.quote(conid)
        if quote is not None:
            engine.inject(
                MarketEvent(
                    engine.now_ns,
                    target,
                    quote.bid,
                    quote.bid_size,
                    quote.ask,
                    quote.ask_size,
                    quote.last,
                    None,
                )
            )
        self._tape().rename(conid, target)
        for name in engine.account_ids():
            holdings = engine.account(name).holdings()
            if conid in holdings:
                holdings[target] = holdings.pop(conid)
                engine.tell_account(name)

    # --- common ------------------------------------------------------------------------------------

    def _instrument(self, conid: int) -> Instrument:
        found = self._core.instrument(conid)
        if found is None:
            raise UsageError(f"conid {conid} is not in the universe.")
        return found

    def _end_orders(self, conid: int, reason: str) -> list[int]:
        chosen = [
            one for one in self._core.engine.orders() if one.spec.conid == conid and one.status not in DONE
        ]
        ended: list[int] = []
        for one in chosen:
            ended += orders.end(
                self._core, order_id=one.order_id, account=None, time_in_force=None, reason=reason
            )
        return ended

    def _tape(self) -> AdjustedTape:
        engine = self._core.engine
        if not isinstance(engine.tape, AdjustedTape):
            engine.tape = AdjustedTape(engine.tape)
        return engine.tape

    def _note(self, told: dict[str, Any]) -> dict[str, Any]:
        self.record.append({"now_ns": self._core.now_ns, **told})
        return told

    def undo(self) -> None:
        """The market begins anew: the universe is what it was."""
        for conid in self._added:
            self._core.universe.remove(conid)
        for instrument in reversed(self._former):
            self._core.universe.replace(instrument)
        self._former.clear()
        self._added.clear()
        self.record.clear()
        self.adjustments.clear()


def _split_holding(books: Account, instrument: Instrument, ratio: Fraction, price: float | None) -> Decimal:
    """Change a holding; what was paid stays, but for the share of the fraction that is paid out in cash."""
    holding = books.holdings()[instrument.contract.conid]
    whole = holding.quantity * ratio.numerator / ratio.denominator
    step = exact(instrument.contract.size_increment)
    kept = (whole / step).to_integral_value(ROUND_DOWN) * step
    rest = whole - kept
    holding.quantity = whole
    cash = Decimal(0)
    if rest and price is not None:
        side = Side.SELL if rest > 0 else Side.BUY
        cash = rest * exact(price)
        books.execute(instrument, side, abs(rest), price, Decimal(0))
    return cash
