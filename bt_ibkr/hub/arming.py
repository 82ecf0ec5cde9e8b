"""Which accounts a hub may trade in: decided at the hub, where the orders leave, before it takes the first one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from bt_ibkr.connection.guard import AccountGuard, Standing
from bt_ibkr.errors import NotArmedError, UsageError


class Arming:
    """One guard for each account.

    Args:
        mode: ``paper`` or ``live``; ``None``: nobody said so, and no real money is traded.
        accounts: To be traded in; empty for those that were confirmed, or the login's selected one (not in mode
            ``live``).
        confirmed: Ids of accounts of real money, as the confirmation of mode ``live``.
        ask: Asks a person for the id of an account that was not confirmed; on the thread that opens the hub.
        announce: Told of each account, before its confirmation.

    Raises:
        UsageError, NotArmedError: As ``AccountGuard``.
    """

    def __init__(
        self,
        mode: Literal["paper", "live"] | None = None,
        *,
        accounts: tuple[str, ...] = (),
        confirmed: tuple[str, ...] = (),
        ask: Callable[[Standing], str] | None = None,
        announce: Callable[[Standing], None] | None = None,
    ) -> None:
        wanted: tuple[str | None, ...] = accounts or confirmed or (None,)
        beside = [one for one in confirmed if one not in wanted]
        if beside:
            raise UsageError(
                f"Account {beside[0]} was confirmed, but it is not one of the hub's: "
                f"{', '.join(one for one in wanted if one)}.",
                remedy="Name it among the accounts, or leave its confirmation out.",
            )
        self.mode = mode
        self._guards = tuple(
            AccountGuard(
                mode,
                account=one,
                confirm_account=one if one in confirmed else None,
                announce=announce,
                ask=ask,
            )
            for one in wanted
        )

    def admit(self, accounts: tuple[str, ...], is_paper: bool | None) -> tuple[str, ...]:
        """The accounts to be traded in.

        Args:
            accounts: Of the login, the selected one first.
            is_paper: IBKR's word on them.

        Raises:
            UsageError: One that is wanted is not the login's.
            NotArmedError: One is not of the mode's kind, or was not confirmed.
        """
        return tuple(self._admit(guard, accounts, is_paper) for guard in self._guards)

    def _admit(self, guard: AccountGuard, accounts: tuple[str, ...], is_paper: bool | None) -> str:
        if not accounts:
            raise NotArmedError("This login has no account.", remedy="Log in as a user that has one.")
        standing = Standing(accounts=accounts, account=guard.choose(accounts), is_paper=is_paper)
        guard.check_orders(standing)
        guard.admit(standing)
        return standing.account

    def still_holds(self, accounts: tuple[str, ...], is_paper: bool | None) -> None:
        """After the session came back, perhaps with another login.

        Raises:
            NotArmedError: An account is gone, or of another kind.
        """
        for guard in self._guards:
            if guard.passed is not None:
                account = guard.passed.account
                guard.still_holds(Standing(accounts=accounts, account=account, is_paper=is_paper))
