"""The two tiers of a session and what is remembered in them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import Enum

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Needs


class Tier(Enum):
    """How far the session has come."""

    LOGGED_OUT = "logged_out"
    NO_BRIDGE = "no_bridge"
    READY = "ready"


class SessionState:
    """The user's session; one, as IBKR allows one brokerage session per user.

    Args:
        tier: Where it begins.
        accounts: Account ids; the first one is selected.
        seed: Of the session ids.

    Attributes:
        session_id: What ``/tickle`` tells; new with each brokerage session.
        accounts_asked: ``/iserver/accounts`` was called in this brokerage session.
        portfolio_asked: ``/portfolio/accounts`` or subaccounts was called since the login.
        pnl_asked: ``pnl/partitioned`` was called once, which starts it.
        positions_read: Accounts whose positions were read once; later reads tell names too.
        suppressed: Ids of questions that are not asked.
        competing: Another login has the brokerage session.
        maintenance: Nobody can be logged in.
        fail: Why the last attempt to open a brokerage session failed.
        bridge_missing: So many more requests find no bridge yet.
    """

    def __init__(self, *, tier: Tier, accounts: tuple[str, ...], seed: int) -> None:
        self._seed = seed
        self._random = random.Random(f"session-{seed}")
        self.accounts = accounts
        self.selected = accounts[0]
        self.suppressed: set[str] = set()
        self.accounts_asked = False
        self.portfolio_asked = False
        self.pnl_asked = False
        self.positions_read: set[str] = set()
        self.session_id = ""
        self.competing = False
        self.maintenance = False
        self.fail = ""
        self.bridge_missing = 0
        self.tier = tier
        self.set_tier(tier)

    @property
    def ready(self) -> bool:
        return self.tier is Tier.READY

    def set_tier(self, tier: Tier) -> None:
        """Move to ``tier``; whatever belongs to the former brokerage session is forgotten."""
        self.tier = tier
        self.competing = False
        self.fail = ""
        self.bridge_missing = 0
        self.accounts_asked = False
        self.pnl_asked = False
        self.suppressed.clear()
        self.positions_read.clear()
        if tier is Tier.LOGGED_OUT:
            self.portfolio_asked = False
        self.renew_id()

    def restore(self, values: Mapping[str, object], restarts: int) -> None:
        """Be what it was before the server was started again; ids of its time do not come again."""
        self._random.seed(f"session-{self._seed}-{restarts}")
        for name, value in values.items():
            setattr(self, name, value)

    def renew_id(self) -> None:
        """Another id, as ``/tickle`` will tell."""
        self.session_id = f"{self._random.getrandbits(128):032x}"

    def require(self, needs: Needs) -> None:
        """Refuse a request the session is not ready for.

        Raises:
            ApiError: 401, 400 ``no bridge``, 500 ``Please query /accounts first``, or 503 in maintenance.
        """
        if needs is Needs.NOTHING:
            return
        if self.maintenance:
            raise errors.unavailable()
        if self.tier is Tier.LOGGED_OUT:
            raise errors.not_authenticated()
        if needs is Needs.LOGIN:
            return
        if self.tier is not Tier.READY:
            raise errors.no_bridge()
        if self.bridge_missing:
            self.bridge_missing -= 1
            raise errors.no_bridge()
        if needs is Needs.ACCOUNTS and not self.accounts_asked:
            raise errors.accounts_first()
