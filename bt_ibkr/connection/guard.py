"""What may be traded: decided once the session stands, and before the first order can leave.

IBKR tells two things apart by two signs, and both are looked at: ``isPaper`` in ``/iserver/accounts``, and the
account's id, which begins with D on paper (``DU…``, an adviser's ``DF…``) and never does with real money. Where
they contradict each other nothing is traded; nor where the id alone says paper: paper is what IBKR reports as such.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Literal

import msgspec

from bt_ibkr.errors import NotArmedError, UsageError

_log = logging.getLogger(__name__)

Mode = Literal["sim", "paper", "live"]


class AccountKind(StrEnum):
    """Whose money an account holds."""

    PAPER = "paper"
    LIVE = "live"
    UNCLEAR = "unclear"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What IBKR reports of a login.

    Attributes:
        accounts: Account ids, the selected one first.
        account: The one to be traded.
        is_paper: ``isPaper`` of ``/iserver/accounts``; ``None`` if it is not told.
    """

    accounts: tuple[str, ...]
    account: str
    is_paper: bool | None

    @property
    def kind(self) -> AccountKind:
        """By both signs. Where IBKR does not tell, an id of real money is taken at its word, one of paper is not."""
        by_id = self.account.upper().startswith("D")
        if by_id is not bool(self.is_paper):
            return AccountKind.UNCLEAR
        return AccountKind.PAPER if by_id else AccountKind.LIVE

    @property
    def told(self) -> str:
        """What is known of the account, as the end of a sentence about it."""
        if self.kind is not AccountKind.UNCLEAR:
            return f"is a {self.kind} account"
        if self.is_paper is None:
            return "is not reported as paper by IBKR, which only its id suggests"
        return f"is reported as {'paper' if self.is_paper else 'live'} by IBKR, which its id contradicts"


class AccountGuard:
    """Lets a run pass, or refuses it. One for each store.

    Args:
        mode: ``paper`` or ``live``; ``sim`` for a server that is known to be an emulator, whatever its accounts
            are called; ``None`` for a store of which nobody said so: that one trades no real money.
        account: The account that is wanted; ``None`` for the login's selected one (not in mode ``live``).
        confirm_account: The account's id once more, as the confirmation of mode ``live``.
        announce: Told what is about to be traded, before any confirmation.
        ask: Asks a person for the account's id; used in mode ``live`` where ``confirm_account`` is not given.

    Raises:
        UsageError: Settings that contradict each other.
        NotArmedError: Mode ``live`` without an account, or without a way to confirm it.
    """

    def __init__(
        self,
        mode: Mode | None = None,
        *,
        account: str | None = None,
        confirm_account: str | None = None,
        announce: Callable[[Standing], None] | None = None,
        ask: Callable[[Standing], str] | None = None,
    ) -> None:
        if mode not in (None, "sim", "paper", "live"):
            raise UsageError(f"Mode {mode!r} is none that trades.", remedy="Modes: paper, live.")
        if confirm_account is not None and mode != "live":
            raise UsageError(
                "A confirmation was given, but the mode is not live.",
                remedy="Leave --yes-live (confirm_account) out, or say mode live.",
            )
        if mode == "live":
            account = account or confirm_account
            if not account:
                raise NotArmedError(
                    "Mode live trades real money, but no account was named.",
                    remedy="Name it: --account ACCOUNT (in Python: account=…).",
                )
            if confirm_account is None and ask is None:
                raise NotArmedError(
                    f"Mode live trades real money in {account}, and nobody confirmed it.",
                    remedy=f"In a script say --yes-live {account} (in Python: confirm_account={account!r}); on a "
                    "terminal the account id is asked for.",
                )
        self.mode = mode
        self.account = account
        self._confirm_account = confirm_account
        self.announce = announce
        self._ask = ask
        #: Set once everything was checked.
        self.passed: Standing | None = None

    def choose(self, accounts: tuple[str, ...]) -> str:
        """The account to be traded, of those that the login has.

        Raises:
            UsageError: The wanted one is not among them, or there is none.
        """
        if self.account is not None and self.account not in accounts:
            raise UsageError(
                f"Account {self.account!r} is not one of this login's: {', '.join(accounts) or 'none'}.",
                remedy="Name one of them.",
            )
        return self.account or accounts[0]

    def admit(self, standing: Standing) -> None:
        """Check, announce, have confirmed.

        Raises:
            NotArmedError: The account is not of the mode's kind, or the confirmation is another account's.
        """
        self._check_kind(standing)
        _log.info(
            "account-admitted mode=%s account=%s kind=%s", self.mode or "any", standing.account, standing.kind
        )
        if self.announce is not None:
            self.announce(standing)
        if self.mode == "live":
            self._check_confirmation(standing)
        self.passed = standing

    def still_holds(self, standing: Standing) -> None:
        """After the session came back, perhaps with another login: the same account must be of the same kind.

        Raises:
            NotArmedError: It is not.
        """
        if self.passed is None:
            return
        if standing.account not in standing.accounts:
            raise NotArmedError(
                f"The session came back with another login: {', '.join(standing.accounts) or 'no account'} instead "
                f"of {standing.account}.",
                remedy="Log in as before and start again.",
            )
        if standing.is_paper is None:
            # It was told before, of the same account.
            standing = msgspec.structs.replace(standing, is_paper=self.passed.is_paper)
        self._check_kind(standing)

    def check_orders(self, standing: Standing) -> None:
        """Before the broker attaches to the account.

        Raises:
            NotArmedError: Nobody said which mode, and the account is not one of paper.
        """
        if self.mode is None and standing.kind is not AccountKind.PAPER:
            raise NotArmedError(
                f"Account {standing.account} {standing.told}, and this store was not armed for real money.",
                remedy="In Python: IBKRStore(mode='live', account=…, confirm_account=…).",
            )

    def check_further(self, standing: Standing, *, confirmed: bool) -> None:
        """Before orders may go to a further account of the login.

        Raises:
            NotArmedError: It is not of the mode's kind, or holds real money and was not confirmed.
        """
        self.check_orders(standing)
        self._check_kind(standing)
        if self.mode == "live" and not confirmed:
            raise NotArmedError(
                f"Mode live trades real money in {standing.account}, and nobody confirmed it.",
                remedy=f"Name it twice: getbroker(accounts=({standing.account!r},), "
                f"confirm_accounts=({standing.account!r},)).",
            )

    def _check_kind(self, standing: Standing) -> None:
        if self.mode not in ("paper", "live") or standing.kind == self.mode:
            return
        if standing.kind is AccountKind.UNCLEAR:
            remedy = "Look at the login: its accounts and IBKR's word on them do not go together."
        elif self.mode == "paper":
            remedy = "Log in with the paper account's own user name, or name a paper account."
        else:
            remedy = "Say --mode paper, or log in with the user name of the live account."
        raise NotArmedError(
            f"Mode {self.mode} was asked for, but account {standing.account} {standing.told}.",
            remedy=remedy,
        )

    def _check_confirmation(self, standing: Standing) -> None:
        given = self._confirm_account
        if given is None:
            given = self._ask(standing).strip() if self._ask is not None else ""
        if given != standing.account:
            raise NotArmedError(
                f"Mode live trades in {standing.account}, but {given!r} was confirmed.",
                remedy="Confirm with the account's id, exactly as it is shown.",
            )
