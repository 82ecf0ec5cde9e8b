"""Which streams snapshots have opened."""

from __future__ import annotations


class SnapshotStreams:
    """Fields asked for so far, by conid. A field is answered from the second request for it on."""

    def __init__(self) -> None:
        self._fields: dict[int, frozenset[str]] = {}

    def ask(self, conid: int, fields: tuple[str, ...]) -> frozenset[str]:
        """Open or widen the stream; returns the fields that were open before this request."""
        before = self._fields.get(conid, frozenset())
        self._fields[conid] = before | frozenset(fields)
        return before

    @property
    def conids(self) -> frozenset[int]:
        """Whose streams are open."""
        return frozenset(self._fields)

    def has(self, conid: int) -> bool:
        return conid in self._fields

    def close(self, conid: int) -> bool:
        """Close the stream; whether there was one."""
        return self._fields.pop(conid, None) is not None

    def clear(self) -> None:
        self._fields.clear()
