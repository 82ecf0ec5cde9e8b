"""What the server says that nobody here knows: tolerated, counted, and logged once by name."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from bt_ibkr.wire import tags

_log = logging.getLogger(__name__)

#: So many names are told apart; a server that makes up ever new ones is only counted.
_MOST = 200
#: Topics of the socket, before any ``+``: those used here, and those that are known and of no use.
TOPICS = frozenset(
    {"act", "blt", "ntf", "sbd", "shd", "sld", "smd", "smh", "sor", "spl", "ssd", "str", "sts", "system", "tic"}
)  # fmt: skip
#: Keys of market-data frames that are no field tags.
_ENVELOPE = frozenset({"_updated", "conid", "conidEx", "server_id", "topic"})
_KNOWN_KEYS = _ENVELOPE | tags.NAMES.keys()

_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Unknowns:
    """One session's.

    Attributes:
        count: How often something unknown was met; of fields, only where frames are looked at.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()
        self.count = 0

    def topic(self, topic: str | None) -> None:
        """A frame that nobody takes."""
        if topic is None:
            self._note("frame", "without a topic")
        elif topic.partition("+")[0] not in TOPICS:
            self._note("topic", topic)

    def fields(self, data: bytes | str) -> None:
        """The text of a market-data frame: the keys that are no known field."""
        try:
            found: Iterable[str] = _keys(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            # Whoever reads the frame for its values says what is wrong with it.
            return
        for key in found:
            if key not in _KNOWN_KEYS:
                self._note("field", key)

    def _note(self, what: str, name: str) -> None:
        self.count += 1
        if (what, name) in self._seen or len(self._seen) >= _MOST:
            return
        self._seen.add((what, name))
        _log.warning("unknown-%s name=%r passed over", what, name[:100])
