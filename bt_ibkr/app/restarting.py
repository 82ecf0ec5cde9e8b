"""Whether a process that has ended is started again, and when. Pure."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

import msgspec

from bt_ibkr.errors import UsageError

#: What a strategy's command ends with where the same again would end the same: a wrong argument, a strategy that
#: cannot be loaded, an instrument that there is not.
HOPELESS: Final = frozenset({2, 3, 4})
#: And where it found no way to the hub, or the hub none to IBKR.
NO_WAY: Final = 6
#: Ended by a signal that asks for it, in order or not.
ASKED: Final = frozenset({0, 130, 143, -2, -15})


class Restart(StrEnum):
    """When."""

    NEVER = "never"
    #: Not after an exit code 0, nor when somebody has asked it to end.
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how fast.

    Attributes:
        restart: When at all.
        backoff_s: Seconds before the first restart; doubled for each further one.
        backoff_longest_s: No longer.
        most_restarts: So many in a row at most.
        stable_s: A process that lived so long was well: the count begins anew.
    """

    restart: Restart = Restart.ON_FAILURE
    backoff_s: float = 1.0
    backoff_longest_s: float = 60.0
    most_restarts: int = 10
    stable_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("backoff_s", "backoff_longest_s", "stable_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(
                    f"{name} = {getattr(self, name)!r} is no time.", remedy="Give seconds above 0."
                )
        if self.most_restarts < 1:
            raise UsageError(
                f"most_restarts = {self.most_restarts} is too little.",
                remedy='Give 1 or more; restart = "never".',
            )


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is done about an end.

    Attributes:
        again_s: Seconds until the restart; ``None``: it is over.
        well: It ended as it should.
        why: In words, where it is over and was not well.
    """

    again_s: float | None
    well: bool
    why: str = ""


class Restarts:
    """Counts one process's restarts.

    Args:
        policy: Its.
        ours: Its exit codes are those of this product's commands.

    Attributes:
        total: All of them.
    """

    def __init__(self, policy: RestartPolicy, *, ours: bool) -> None:
        self._policy = policy
        self._ours = ours
        self._in_a_row = 0
        self._counted = 0
        self.total = 0

    def ended(self, code: int, lived_s: float) -> Verdict:
        """It has ended by itself.

        Args:
            code: Its exit code; below 0 the number of the signal that it died of.
            lived_s: How long it ran.
        """
        policy = self._policy
        well = code in ASKED
        if policy.restart is Restart.NEVER or (well and policy.restart is Restart.ON_FAILURE):
            return Verdict(again_s=None, well=well, why="" if well else "it is not to be restarted")
        if self._ours and code in HOPELESS:
            return Verdict(again_s=None, well=False, why="the same again would end the same")
        if lived_s >= policy.stable_s:
            self._in_a_row = self._counted = 0
        if not (self._ours and code == NO_WAY):
            # While there is no way to the hub, a strategy is not given up.
            if self._counted >= policy.most_restarts:
                return Verdict(
                    again_s=None, well=well, why=f"it was restarted {self._counted} times in a row"
                )
            self._counted += 1
        wait_s = min(policy.backoff_s * 2.0 ** min(self._in_a_row, 60), policy.backoff_longest_s)
        self._in_a_row += 1
        self.total += 1
        return Verdict(again_s=wait_s, well=well)
