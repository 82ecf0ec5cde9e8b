"""What can go wrong with orders, executions and positions: one frozen type per ``kind``.

Times are wall seconds. A ``count`` of 0 means until the fault is cleared.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bt_ibkr.emulator.faults.base import Count, Seconds, Spec, Tiers

# --- submission ------------------------------------------------------------------------------------


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question: its words, and its id at IBKR unless it has none."""

    text: Annotated[str, Meta(min_length=1)]
    id: str | None = None


class Questions(Spec, frozen=True, kw_only=True, tag="questions"):
    """The next ``count`` orders or changes are asked all of ``chain`` first.

    Attributes:
        chain: One element per answer; an answer may hold several questions. An answer none of whose questions
            has an id comes without ``messageIds``.
        on: Whether new orders (``place``), changes (``modify``) or both are asked.
        usual: Whether the questions that the settings want follow.
    """

    chain: Annotated[tuple[Annotated[tuple[Asked, ...], Meta(min_length=1)], ...], Meta(min_length=1)]
    on: Literal["place", "modify", "any"] = "any"
    usual: bool = False
    count: Count = 1


class Replies(Spec, frozen=True, kw_only=True, tag="replies"):
    """The next ``count`` answers to questions fail; what waited for them is gone.

    Attributes:
        action: ``invalid``: 400, ``reply id not found``. ``unavailable``: 503 after ``delay_s``.
        taken: Of ``unavailable``: the answer is carried out all the same.
    """

    action: Literal["invalid", "unavailable"]
    taken: bool = False
    delay_s: Seconds = 0.0
    count: Count = 1


class QuestionEnds(Spec, frozen=True, kw_only=True, tag="question_ends_session"):
    """The brokerage session ends as soon as a question has been asked; then it is as in ``then``."""

    then: Tiers = "no_bridge"
    told: bool = True
    count: Count = 1


class Bracket(Spec, frozen=True, kw_only=True, tag="bracket"):
    """One child of the next bracket is refused, in one of the shapes that were recorded, or lost.

    Attributes:
        shape: ``sentinel``: an array in which the child has the id -1. ``error``: no array, only
            ``{"error": text}``. ``ids``: everything has an id, and the child is cancelled at once.
            ``missing``: the child is not mentioned.
        parent: What becomes of the rest: it stands (``live``), or nothing does (``inactive``, which says so in
            the parent's row, and ``absent``). By default ``absent`` for ``error``, ``live`` for the others.
        child: Which one, counted from 0 in the order of the request.
        text: Why.
    """

    shape: Literal["sentinel", "error", "ids", "missing"] = "sentinel"
    parent: Literal["live", "inactive", "absent"] | None = None
    child: Annotated[int, Meta(ge=0, le=100)] = 0
    text: str = "The order was refused by the exchange."
    count: Count = 1

    def __post_init__(self) -> None:
        if self.shape in ("ids", "missing") and self.parent not in (None, "live"):
            raise ValueError(f"with shape {self.shape} the parent is live")
        if self.shape == "error" and self.parent == "inactive":
            raise ValueError("with shape error the parent is live or absent")
        if self.shape == "sentinel" and self.parent == "absent":
            raise ValueError("with shape sentinel the parent is live or inactive")

    @property
    def stands(self) -> bool:
        """The parent and its other children are placed."""
        return self.parent == "live" or (self.parent is None and self.shape != "error")


class Answers(Spec, frozen=True, kw_only=True, tag="answers"):
    """In which order the rows of an answer to several orders stand."""

    order: Literal["parent_first", "children_first", "shuffle"]
    count: Count = 0


class NewOrderId(Spec, frozen=True, kw_only=True, tag="new_order_id"):
    """The next ``count`` changes give their order another id; the former one is unknown from then on."""

    count: Count = 1


# --- lists -----------------------------------------------------------------------------------------


class OrderList(Spec, frozen=True, kw_only=True, tag="order_list"):
    """What is wrong with ``iserver/account/orders``; forced calls are not counted.

    Attributes:
        action: ``empty``; ``vanish``: the rows of ``orders`` (ids or client ids), or those with one of
            ``statuses``, or all, are left out; ``freeze``: the list stays as it is now; ``foreign``: orders of
            other accounts are listed too, and if ``account`` is none of the emulator's, ``rows`` invented ones.
        after_force: Only calls after a forced one count.
        snapshot: Of ``empty``: what the answer says of itself.
    """

    action: Literal["empty", "vanish", "freeze", "foreign"]
    after_force: bool = False
    snapshot: bool = True
    orders: tuple[int | str, ...] = ()
    statuses: tuple[str, ...] = ()
    account: str = ""
    rows: Annotated[int, Meta(ge=1, le=1000)] = 1
    count: Count = 0


class OrderStatusFails(Spec, frozen=True, kw_only=True, tag="order_status"):
    """``order/status`` of a finished order, or of any (``finished`` false), is 503 ``is not found``."""

    finished: bool = True
    order_id: int | None = None
    count: Count = 0


class Trades(Spec, frozen=True, kw_only=True, tag="trades"):
    """What is wrong with ``iserver/account/trades``.

    ``lag``: executions are listed ``lag_s`` after they happened; with 0 none that happens while this lasts.
    """

    action: Literal["empty", "lag", "shuffle", "duplicate"]
    lag_s: Seconds = 0.0
    count: Count = 0


class Commissions(Spec, frozen=True, kw_only=True, tag="commissions"):
    """Commissions of the next ``count`` executions are told ``delay_s`` late; with 0 not before this is cleared.

    Until then ``trades`` leaves them out and ``str`` does not repeat the execution.
    """

    delay_s: Seconds = 0.0
    count: Count = 0


class Positions(Spec, frozen=True, kw_only=True, tag="positions"):
    """What is wrong with positions, in ``portfolio`` and ``portfolio2``.

    Attributes:
        action: ``fail`` with ``status``, ``empty``, or ``lag``: what is told is ``lag_s`` old, and with 0 as old
            as this fault.
        account: Of one account only.
        invalidate: Of ``lag``: ``positions/invalidate`` makes what is told fresh.
    """

    action: Literal["fail", "empty", "lag"]
    status: Annotated[int, Meta(ge=400, le=599)] = 500
    lag_s: Seconds = 0.0
    account: str = ""
    invalidate: bool = True
    count: Count = 0
