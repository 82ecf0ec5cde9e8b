"""Which accounts of the login the broker trades in."""

from __future__ import annotations

from collections.abc import Sequence

from bt_ibkr.connection.guard import Standing
from bt_ibkr.errors import UsageError
from bt_ibkr.store import IBKRStore


def admitted(store: IBKRStore, further: Sequence[str], confirmed: Sequence[str]) -> tuple[str, ...]:
    """The store's account, and the further ones, each of which the store's guard has let pass.

    Args:
        store: Started; its own account has passed.
        further: Accounts named by the user.
        confirmed: Those of them that were named twice, which real money wants.

    Raises:
        UsageError: One is not the login's.
        NotArmedError: One may not be traded in this mode.
    """
    connection = store.connection
    rest = tuple(dict.fromkeys(account for account in further if account != store.account))
    for account in rest:
        if account not in connection.accounts():
            raise UsageError(
                f"IBKRBroker: account {account!r} is not one of this login's: "
                f"{', '.join(connection.accounts())}.",
                remedy="Name accounts of this login.",
            )
        standing = Standing(accounts=connection.accounts(), account=account, is_paper=connection.is_paper())
        store.guard.check_further(standing, confirmed=account in confirmed)
    return (store.account, *rest)
