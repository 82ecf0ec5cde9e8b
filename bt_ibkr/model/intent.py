"""An order as a strategy means it, with the key it is known by everywhere, and the states it goes through.

The key is ``NAME.EPOCH.SEQ``, for example ``sma_cross.k3f9a.17``: the strategy's name, the journal's epoch (random,
so that a journal that was lost never uses a key again), and a number that counts per name. It goes to IBKR as
``cOID``; only bracket children cannot carry it there.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from bt_ibkr.model.order import OrderTicket

#: The longest ``cOID`` IBKR takes.
LONGEST_KEY: Final = 64
EPOCH_LENGTH: Final = 5
#: Room for nine digits of SEQ and two dots.
LONGEST_NAME: Final = LONGEST_KEY - EPOCH_LENGTH - 11

_KEY: Final = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_-]*)\.([a-z0-9]{5})\.([1-9][0-9]{0,8})", re.ASCII)
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)


class OrderState(StrEnum):
    """What is known of an order. It leaves INTENDED and UNKNOWN by proof alone."""

    #: Committed to the journal; nothing was sent yet, or the answer is not noted: look it up.
    INTENDED = "intended"
    #: Sent, and the answer is lost: look it up.
    UNKNOWN = "unknown"
    #: IBKR gave it an order id, and it may execute.
    WORKING = "working"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    #: Proven, or decided by a person, not to stand at IBKR; adopted again if it shows up after all.
    ABSENT = "absent"


#: It may stand at IBKR.
OPEN: Final = frozenset({OrderState.INTENDED, OrderState.UNKNOWN, OrderState.WORKING})
#: Whether it stands at IBKR is not known.
UNPROVEN: Final = frozenset({OrderState.INTENDED, OrderState.UNKNOWN})
ENDED: Final = frozenset(OrderState) - OPEN


class OrderIntent(msgspec.Struct, frozen=True, kw_only=True):
    """An order before it is sent.

    Attributes:
        key: ``NAME.EPOCH.SEQ``.
        strategy: The strategy's name, as it is in the key.
        ticket: What is sent.
        parent_key: Key of the bracket's parent.
        group: Name of the one-cancels-others group that the adapter keeps, also across submissions.
        expires_ns: The adapter cancels it then: the wire knows no such time in force.
        dataname: The feed's name for the instrument.
        trade_id: backtrader's ``tradeid``.
        info: What the strategy passed along, as far as JSON can carry it.
    """

    key: str
    strategy: str
    ticket: OrderTicket
    parent_key: str | None = None
    group: str | None = None
    expires_ns: int | None = None
    dataname: str = ""
    trade_id: int = 0
    info: dict[str, str | int | float | bool | None] = {}


class KeyParts(NamedTuple):
    """A key, taken apart."""

    name: str
    epoch: str
    number: int


def make_key(name: str, epoch: str, number: int) -> str:
    """The key of a strategy's order; ``name`` as ``key_name`` gives it."""
    return f"{name}.{epoch}.{number}"


def parse_key(text: str) -> KeyParts | None:
    """The parts of a key; ``None`` if the text is none, such as a ``cOID`` of another program."""
    if len(text) > LONGEST_KEY or (match := _KEY.fullmatch(text)) is None:
        return None
    return KeyParts(match[1], match[2], int(match[3]))


def key_name(text: str) -> str:
    """A name that may stand in a key, from any text; the same text gives the same name."""
    name = _NO_NAME.sub("_", text).lstrip("-")[:LONGEST_NAME]
    return name or "strategy"
