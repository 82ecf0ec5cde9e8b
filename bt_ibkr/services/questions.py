"""Which of IBKR's order questions are answered with yes.

Questions are known by their message ids, never by their text. An id that is not listed here is answered
with no: the order is then not placed, and its refusal names the question.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

#: Precautions that a program which checks its own orders may pass, with IBKR's short titles.
ACCEPTED: dict[str, str] = {
    "o163": "price exceeds the percentage constraint",
    "o354": "order without market data",
    "o382": "value exceeds the tick size limit",
    "o383": "size exceeds the size limit",
    "o403": "order will most likely trigger at once",
    "o451": "total value exceeds the total value limit",
    "o2165": "fractions do not trade outside regular hours",
    "o10138": "size modification exceeds the limit",
    "o10151": "risks of a market order",
    "o10152": "risks of a stop order",
    "o10153": "mandatory cap price",
    "o10331": "about stop order types",
    "o10335": "rapid entry of orders",
    "o10336": "limited liquidity",
    "p12": "price management algorithm",
}


class QuestionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Answers by message id.

    Attributes:
        accept: Ids answered with yes; all others are declined.
    """

    accept: frozenset[str] = frozenset(ACCEPTED)

    def accepts(self, message_ids: Iterable[str]) -> bool:
        """Whether all of a question's ids are accepted. A question without an id is declined."""
        ids = tuple(message_ids)
        return bool(ids) and all(one in self.accept for one in ids)
