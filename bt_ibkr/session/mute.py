"""Topics that fell silent on a connection that is alive.

Heartbeats show that the socket works, not that a subscription does. A topic that spoke and then says nothing for a
while is asked for again, which the server answers with what it has; if it does not, the connection is of no use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Verdict(NamedTuple):
    """Topics to ask for again, and topics that did not answer that."""

    ask: list[str]
    dead: list[str]


class MuteWatch:
    """Follows the topics of one connection.

    Args:
        mute_s: Seconds of silence after which a topic is asked for again.
        answer_s: Seconds it has for its answer.

    Attributes:
        heard: Topics of frames since the last look; whoever reads frames adds to it.
    """

    def __init__(self, mute_s: float, answer_s: float) -> None:
        self._mute_s = mute_s
        self._answer_s = answer_s
        self.heard: set[str | None] = set()
        self._last_s: dict[str, float] = {}
        self._asked_s: dict[str, float] = {}

    def look(self, now_s: float, topics: Iterable[str]) -> Verdict:
        """What is to be done at ``now_s`` (a clock that never steps back) about ``topics``.

        A topic that never spoke on this connection is left alone: it may have nothing to say.
        """
        verdict = Verdict([], [])
        for topic in topics:
            if topic in self.heard:
                self._last_s[topic] = now_s
                self._asked_s.pop(topic, None)
                continue
            last_s = self._last_s.get(topic)
            if last_s is None:
                continue
            asked_s = self._asked_s.get(topic)
            if asked_s is None:
                if now_s - last_s >= self._mute_s:
                    self._asked_s[topic] = now_s
                    verdict.ask.append(topic)
            elif now_s - asked_s >= self._answer_s:
                verdict.dead.append(topic)
        self.heard.clear()
        return verdict

    def forget(self, topic: str) -> None:
        """It is no longer subscribed."""
        self._last_s.pop(topic, None)
        self._asked_s.pop(topic, None)

    def since_s(self, topics: Iterable[str]) -> float:
        """When the first of ``topics`` to fall silent was heard last."""
        return min(self._last_s[topic] for topic in topics)
