"""Who may do what: accounts, instruments, reading or trading, by strategy."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from bt_ibkr.errors import NotArmedError, UsageError
from bt_ibkr.model.contract import Contract


class OnVanish(StrEnum):
    """What is done about a strategy that is gone without having said so."""

    #: Its orders and its book stay as they are.
    LEAVE = "leave"
    #: Its open orders are cancelled.
    CANCEL = "cancel"
    #: Its open orders are cancelled, then its positions closed at the market.
    FLATTEN = "flatten"


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a strategy may do.

    Attributes:
        key: Its public key; empty where the channel is not encrypted.
        accounts: That it may use; empty for all of the hub's.
        instruments: Patterns, of which one must fit: a symbol (``AAPL``), a type and a symbol (``FUT:ES``,
            ``CASH:*``), a key (``conid:265598``). Empty for all.
        trading: Whether orders are taken from it.
        admin: Whether it may resume trading, close everybody's positions, move positions between books, and take the
            session over.
        watch: Whether it sees all books, streams and processes; an administrator does anyway. Otherwise its own.
        cash: Its share of each account's cash, in the base currency; ``None`` if it sees all of it.
        on_vanish: See ``OnVanish``.
        vanish_s: So many seconds of silence after which ``on_vanish`` is done.
    """

    key: str = ""
    accounts: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    trading: bool = True
    admin: bool = False
    watch: bool = False
    cash: float | None = None
    on_vanish: OnVanish = OnVanish.LEAVE
    vanish_s: float = 60.0

    @property
    def sees_all(self) -> bool:
        """Also what is of other strategies."""
        return self.watch or self.admin

    def check_account(self, name: str, account: str) -> None:
        """Raises ``NotArmedError`` where it may not use the account."""
        if self.accounts and account not in self.accounts:
            raise NotArmedError(
                f"Strategy {name} may not use account {account}.",
                remedy="Its entry in the hub's configuration lists the accounts.",
            )

    def check_trading(self, name: str) -> None:
        """Raises ``NotArmedError`` where it may only read."""
        if not self.trading:
            raise NotArmedError(
                f"Strategy {name} may read, but not trade.",
                remedy="Set trading = true in its entry of the hub's configuration.",
            )

    def check_admin(self, name: str, what: str) -> None:
        """Raises ``NotArmedError`` where it may not ``what``."""
        if not self.admin:
            raise NotArmedError(
                f"{name} may not {what}.", remedy="Set admin = true in its entry of the hub's configuration."
            )

    def check_instrument(self, name: str, contract: Contract) -> None:
        """Raises ``NotArmedError`` where it may not have the contract."""
        if not self.allows(contract):
            raise NotArmedError(
                f"Strategy {name} may not use {contract.describe()} (conid {contract.conid}).",
                remedy="Its entry in the hub's configuration lists the instruments.",
            )

    def allows(self, contract: Contract) -> bool:
        """Whether a pattern fits."""
        return self.allows_words(contract.symbol, contract.security_type.value, contract.conid)

    def allows_words(self, symbol: str, security_type: str, conid: int) -> bool:
        """As ``allows``, of what was not looked up as a contract."""
        if not self.instruments:
            return True
        words = (symbol, f"{security_type}:{symbol}", f"conid:{conid}")
        return any(fnmatchcase(word, pattern) for pattern in self.instruments for word in words)


#: Of a strategy that no configuration names, where those are let in.
EVERYTHING: Final = Grant(admin=True)
#: Of whoever wants to look at a hub without encryption.
LOOKING: Final = Grant(trading=False, watch=True)


class Access:
    """Finds what a process may do.

    Args:
        strategies: By name.
        unlisted: Of those that are not in it; ``None``: they are refused.
        encrypted: Keys are known, and each strategy must have the one of its entry.
    """

    def __init__(
        self, strategies: dict[str, Grant], *, unlisted: Grant | None, encrypted: bool = False
    ) -> None:
        self._strategies = strategies
        self._unlisted = unlisted
        self._encrypted = encrypted

    def grant(self, name: str, role: str, user: str) -> Grant:
        """What the process of that name and key may do.

        Raises:
            NotArmedError: Nothing: it is not listed, or its key is another's.
            UsageError: It says to be something that there is not.
        """
        if role not in ("strategy", "observer"):
            raise UsageError(f"A hub has no {role!r}.", remedy="Be a strategy or an observer.")
        listed = self._strategies.get(name)
        if listed is None and self._encrypted and role == "observer":
            # An observer calls itself as it likes: its key says who it is.
            listed = next((one for one in self._strategies.values() if one.key and one.key == user), None)
        found = listed or self._unlisted
        if found is None and role == "observer" and not self._encrypted:
            found = LOOKING
        if found is None:
            raise NotArmedError(
                f"Strategy {name!r} is not in the hub's configuration.",
                remedy=f"Add [strategies.{name}] to it, or set unlisted = true.",
            )
        if self._encrypted and found.key and found.key != user:
            raise NotArmedError(
                f"Strategy {name!r} came with another key than the one in the hub's configuration.",
                remedy="Give it its own secret key, or enter its public key: bt-ibkr hub keys.",
            )
        return found

    def own_name(self, name: str, user: str) -> str:
        """Of an observer: the strategy that it looks for, by its key where it has one."""
        if name in self._strategies:
            return name
        return next((own for own, one in self._strategies.items() if one.key and one.key == user), name)

    def grant_of(self, name: str) -> Grant:
        """What a strategy of that name was given, whoever it is; nothing special if it is not known any more."""
        return self._strategies.get(name) or self._unlisted or Grant()
