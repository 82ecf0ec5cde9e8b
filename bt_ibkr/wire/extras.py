"""Further fields of a market-data stream: decoded beside the quote, merged into one mapping of names to numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from bt_ibkr.errors import WireError
from bt_ibkr.wire import tags, values

_log = logging.getLogger(__name__)

#: Names that no field tells: what they follow from does.
COMPUTED: Final = frozenset({"vwap"})


@lru_cache(maxsize=256)
def _decoder(wanted: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Decodes only the fields ``wanted``; an attribute ``_TAG`` is UNSET where the frame leaves it out."""
    fields = [(f"_{tag}", Any, msgspec.UNSET) for tag in wanted]
    frame = msgspec.defstruct("ExtraFields", fields, rename={f"_{tag}": tag for tag in wanted}, gc=False)
    return msgspec.json.Decoder(frame)


class Extras:
    """The present values of the further fields of one instrument.

    Args:
        names: Of ``tags.EXTRA_LINES`` (but those of ``tags.TICK_LINES``, which every stream has) and
            ``tags.TEXT_FIELDS``.
        security_type: Of the contract: the field of some names goes by it.

    Attributes:
        names: All that were asked for.
        fields: The tags to subscribe.
        numbers: By name; replaced by another mapping when one changes, never changed itself.
        texts: The same of fields of text.
        gone: Names that the server calls not available.

    Raises:
        KeyError: A name that there is not.
    """

    __slots__ = (
        "_by_tag", "_decode", "_money", "_quantity", "_strange",
        "fields", "gone", "names", "numbers", "texts",
    )  # fmt: skip

    def __init__(self, names: Iterable[str], security_type: str) -> None:
        self.names = frozenset(names) - frozenset(tags.TICK_LINES)
        self._by_tag = {
            tags.field_of(name, security_type): name for name in sorted(self.names) if name not in COMPUTED
        }
        self.fields = tuple(sorted(self._by_tag, key=int))
        self._decode = _decoder(self.fields).decode
        self.numbers: Mapping[str, float] = {}
        self.texts: Mapping[str, str] = {}
        self.gone: set[str] = set()
        #: Tags with a text that nobody understands: told once.
        self._strange: set[str] = set()
        self._quantity = self._money = 0.0

    def inherit(self, before: Extras) -> None:
        """Go on from what was known of fewer names."""
        self.numbers, self.texts, self.gone = before.numbers, before.texts, set(before.gone)
        self._quantity, self._money = before._quantity, before._money

    def merge(self, data: str | bytes) -> bool:
        """Take in a frame; whether a value changed by it."""
        try:
            frame = self._decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
            self._warn("", problem)
            return False
        numbers: dict[str, float] = {}
        texts: dict[str, str] = {}
        lost: set[str] = set()
        for tag, name in self._by_tag.items():
            value = getattr(frame, "_" + tag)
            if value is msgspec.UNSET or value is None:
                continue
            if name in tags.TEXT_FIELDS:
                text = value.strip() if isinstance(value, str) else ""
                if text in values.NOT_AVAILABLE:
                    lost.add(name)
                else:
                    texts[name] = text
                continue
            try:
                number, _ = values.price(value, tag)
            except WireError as problem:
                self._warn(tag, problem)
                number = None
            if number is None:
                lost.add(name)
            else:
                numbers[name] = number
        return self._take(numbers, texts, lost)

    def _take(self, numbers: dict[str, float], texts: dict[str, str], lost: set[str]) -> bool:
        changed = False
        self.gone -= numbers.keys() | texts.keys()
        self.gone |= lost
        if (
            any(self.numbers.get(name) != value for name, value in numbers.items())
            or lost & self.numbers.keys()
        ):
            self.numbers = {k: v for k, v in (dict(self.numbers) | numbers).items() if k not in lost}
            changed = True
        if any(self.texts.get(name) != value for name, value in texts.items()) or lost & self.texts.keys():
            self.texts = {k: v for k, v in (dict(self.texts) | texts).items() if k not in lost}
            changed = True
        return changed

    def traded(self, price: float | None, quantity: float, volume: float | None) -> bool:
        """Something traded: the average price goes with it, if it was asked for; whether it changed.

        Args:
            volume: The day's; where all of it traded just now, another day begins.
        """
        if "vwap" not in self.names or price is None or quantity <= 0:
            return False
        if volume is not None and quantity >= volume:
            self._quantity = self._money = 0.0
        self._quantity += quantity
        self._money += quantity * price
        self.numbers = dict(self.numbers) | {"vwap": self._money / self._quantity}
        return True

    def _warn(self, tag: str, problem: Exception) -> None:
        if tag not in self._strange:
            self._strange.add(tag)
            _log.warning("extra-field-unreadable tag=%s problem=%s", tag or "?", problem)
