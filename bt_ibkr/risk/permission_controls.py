"""Whether orders may be placed at all, and on what."""

from __future__ import annotations

from typing import Final

from bt_ibkr.model.trading import Trading
from bt_ibkr.risk.controls import Control
from bt_ibkr.risk.limits import RiskLimits, Scope
from bt_ibkr.risk.submission import Case

#: Field of which a trading state is refused in the name of: it is no limit, but `bt-ibkr resume` changes it.
_RESUME: Final = "look at the reason, then run `bt-ibkr resume`"


class ReadOnly(Control):
    """Any order, while the limits or the login are read-only."""

    name = "read_only"
    fields = ("read_only",)
    spares_reducing = False

    def active(self, limits: RiskLimits) -> bool:
        return True

    def check(self, case: Case, scope: Scope) -> None:
        if scope.limits.read_only:
            self.refuse(
                case,
                scope,
                "read_only",
                value="an order",
                why="the risk limits are read-only (read_only = true)",
                change=f"set {scope.place('read_only')} to false",
            )
        if case.submission.view.read_only:
            self.refuse(
                case,
                scope,
                "read_only",
                value="an order",
                limit="read-only login",
                why="the login is read-only",
                change="log in as a user who may trade",
            )


class TradingSwitch(Control):
    """Any order while trading is HALTED; while it is REDUCING, any that could do more than reduce a position."""

    name = "trading_state"
    fields = ()
    spares_reducing = False

    def active(self, limits: RiskLimits) -> bool:
        return True

    def check(self, case: Case, scope: Scope) -> None:
        state = case.submission.view.trading_state()
        if state.mode is Trading.ACTIVE:
            return
        whose = f"by {state.by or 'an unknown hand'}: {state.reason or 'no reason was given'}"
        if state.mode is Trading.HALTED:
            self.refuse(
                case,
                scope,
                "",
                value="an order",
                limit="HALTED",
                why=f"trading is HALTED {whose}",
                change=_RESUME,
            )
        if case.submission.reducing:
            return
        position = case.position
        held = "is not known" if position is None else f"is {position.normalize() + 0:f}"
        self.refuse(
            case,
            scope,
            "",
            value="an order that may increase a position or turn it round",
            limit="REDUCING",
            why=f"trading is REDUCING {whose}; the position {held}, and with the orders that are open already this "
            "one could do more than reduce it",
            remedy="Cancel open orders that close the same position and wait until they are cancelled",
            change=_RESUME,
        )


class Contracts(Control):
    """Contracts and types of instruments that are not allowed, or forbidden; of a combo every leg counts."""

    name = "contracts"
    fields = ("allowed_contracts", "forbidden_contracts", "allowed_security_types")

    def check(self, case: Case, scope: Scope) -> None:
        limits = scope.limits
        kinds = limits.allowed_security_types
        kind = case.ticket.security_type
        if kinds is not None and kind not in kinds:
            self.refuse(
                case,
                scope,
                "allowed_security_types",
                value=kind,
                why=f"its type {kind} is none of allowed_security_types {', '.join(kinds)}",
            )
        if limits.allowed_contracts is None and limits.forbidden_contracts is None:
            return
        own = case.ticket.contract_id
        for conid in [leg.conid for leg in case.ticket.legs] or [own]:
            self._contract(case, scope, conid)

    def _contract(self, case: Case, scope: Scope, conid: int) -> None:
        rules = case.submission.rules(conid)
        names = {str(conid)} | ({rules.symbol.upper()} if rules is not None else set())
        name = f"contract {conid}" if rules is None else f"{rules.symbol} (contract {conid})"
        allowed, forbidden = scope.limits.allowed_contracts, scope.limits.forbidden_contracts
        if allowed is not None and names.isdisjoint(word.upper() for word in allowed):
            self.refuse(
                case,
                scope,
                "allowed_contracts",
                value=name,
                why=f"{name} is none of allowed_contracts {', '.join(allowed)}",
                change=f"add it to {scope.place('allowed_contracts')}",
            )
        if forbidden is None:
            return
        if not names.isdisjoint(word.upper() for word in forbidden):
            self.refuse(
                case,
                scope,
                "forbidden_contracts",
                value=name,
                why=f"{name} is one of forbidden_contracts {', '.join(forbidden)}",
                change=f"take it out of {scope.place('forbidden_contracts')}",
            )
        if rules is None and not all(word.isdigit() for word in forbidden):
            self.refuse(
                case,
                scope,
                "forbidden_contracts",
                value=name,
                why=f"the symbol of {name} is not known, so it may be one of forbidden_contracts "
                f"{', '.join(forbidden)}",
                remedy="Resolve the contract first, as a feed does",
            )


class Sides(Control):
    """Sides that are not allowed."""

    name = "sides"
    fields = ("allowed_sides",)

    def check(self, case: Case, scope: Scope) -> None:
        sides = scope.limits.allowed_sides
        side = case.ticket.side.value
        if sides is not None and side not in sides:
            self.refuse(
                case,
                scope,
                "allowed_sides",
                value=side,
                why=f"its side {side} is none of allowed_sides {', '.join(sides)}, and it does more than reduce a "
                "position",
            )
