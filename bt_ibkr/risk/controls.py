"""What a control is, and the list of all of them in the order they look at an order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from decimal import Decimal
from typing import ClassVar, NoReturn

from bt_ibkr.errors import RiskRefusedError
from bt_ibkr.risk.limits import RiskLimits, Scope
from bt_ibkr.risk.submission import Case, plain


class Control(ABC):
    """One rule. It holds nothing: what it needs of the past is in the submission's history.

    Attributes:
        name: As errors tell it.
        fields: The limits it reads.
        spares_reducing: Orders that only reduce a position pass it.
        spares_changes: Changes of standing orders pass it.
        by_book: What is set for a strategy is of its own book, where it has one.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    spares_reducing: ClassVar[bool] = True
    spares_changes: ClassVar[bool] = False
    by_book: ClassVar[bool] = False

    def active(self, limits: RiskLimits) -> bool:
        """Whether these limits ask for it."""
        return any(getattr(limits, field) not in (None, False) for field in self.fields)

    @abstractmethod
    def check(self, case: Case, scope: Scope) -> None:
        """Refuse the order, or do nothing.

        Raises:
            RiskRefusedError: The order is beyond the limit.
        """

    def refuse(
        self,
        case: Case,
        scope: Scope,
        field: str,
        *,
        value: object,
        why: str,
        limit: object = None,
        remedy: str = "",
        change: str = "",
    ) -> NoReturn:
        """Raise the refusal: what the order has, what the limit is, and where that is set.

        Args:
            field: The limit that is met.
            value: What the order has.
            why: Both, in words.
            limit: What the limit is, where it is not the field's value.
            remedy: What to do about the order.
            change: What to do about the limit; empty for "change it".
        """
        how = change or f"change {scope.place(field)}"
        both = f"{remedy}, or {how}." if remedy else f"{how[0].upper()}{how[1:]}."
        raise RiskRefusedError(
            f"{case.name}: {why}.",
            control=self.name,
            value=shown(value),
            limit=shown(getattr(scope.limits, field) if limit is None else limit),
            key=case.intent.key,
            remedy=f"{both} Nothing was sent.",
        )


def shown(value: object) -> str:
    """A value for people."""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value)
    return str(value)


def most(field: str, scope: Scope) -> Decimal | None:
    """A limit that is a number."""
    found = getattr(scope.limits, field)
    return None if found is None else Decimal(found)
