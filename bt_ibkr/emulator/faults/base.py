"""What all faults have in common as they are asked for."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Tiers = Literal["ready", "no_bridge", "logged_out"]


class Spec(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower
):
    """A fault as it is asked for."""

    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def uses(self) -> int | None:
        """How often it happens; ``None`` until it is cleared."""
        count = getattr(self, "count", 0)
        return count or None
