"""Sessions and accounts: login status, ``tickle``, ``iserver/accounts``, ``portfolio/accounts``."""

from __future__ import annotations

import msgspec

from bt_ibkr.errors import WireError
from bt_ibkr.model.portfolio import Account
from bt_ibkr.wire import fields
from bt_ibkr.wire.json import error_text, parsed


class AuthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """State of the brokerage session.

    Attributes:
        established: An undocumented fourth flag, ``None`` where the server leaves it out. A session that is
            authenticated but not established answers account calls with nothing instead of an error.
        competing: Another session of the same user holds the brokerage session.
        message: The server's words, or the error it answered instead of a status.
    """

    authenticated: bool = False
    established: bool | None = None
    competing: bool = False
    connected: bool = False
    message: str = ""
    server_name: str = ""
    server_version: str = ""

    @property
    def ready(self) -> bool:
        """Whether calls below ``/iserver`` can be expected to work."""
        return self.authenticated and self.connected and self.established is not False and not self.competing


class Tickle(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to ``/tickle``.

    Attributes:
        session: The value for the WebSocket's cookie; a new one tells that the session was replaced.
        auth: ``None`` if the answer held no status.
        error: ``no session`` and the like, which come under HTTP 200.
        sso_expires_ms: Milliseconds until the outer session ends (gateway only).
        collision: The server's ``collission`` (its spelling).
    """

    session: str | None
    auth: AuthStatus | None
    error: str | None = None
    sso_expires_ms: int | None = None
    user_id: str | None = None
    collision: bool | None = None


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to ``/iserver/accounts``, and topic ``act``: the accounts that can be traded."""

    accounts: tuple[Account, ...]
    selected: str | None
    is_paper: bool | None
    session_id: str | None


class PortfolioAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account as ``/portfolio/accounts`` shows it; ``currency`` is its base currency."""

    account_id: str
    title: str
    currency: str
    kind: str
    trading_type: str
    can_trade: bool | None
    parent: str | None


class _ServerInfo(msgspec.Struct, rename="camel"):
    server_name: object = None
    server_version: object = None


class _AuthStatus(msgspec.Struct, rename="camel"):
    authenticated: object = None
    established: object = None
    competing: object = None
    connected: object = None
    message: object = None
    fail: object = None
    server_info: object = None
    server_name: object = None  # topic sts has it here
    server_version: object = None


def auth_status(body: object) -> AuthStatus:
    """The state in an answer of ``auth/status`` or ``ssodh/init``; an error is a state that is not ready.

    Raises:
        WireError: Not an object, or a flag that is no truth value.
    """
    value = parsed(body)
    row = fields.payload(value, _AuthStatus, "auth/status")
    inner = row.server_info if isinstance(row.server_info, dict) else {}
    info = fields.payload(inner, _ServerInfo, "serverInfo")
    message = fields.text(row.message) or fields.text(row.fail) or error_text(value) or ""
    return AuthStatus(
        authenticated=bool(fields.flag(row.authenticated, "authenticated")),
        established=fields.flag(row.established, "established"),
        competing=bool(fields.flag(row.competing, "competing")),
        connected=bool(fields.flag(row.connected, "connected")),
        message=message,
        server_name=fields.text(info.server_name) or fields.text(row.server_name) or "",
        server_version=fields.text(info.server_version) or fields.text(row.server_version) or "",
    )


class _Tickle(msgspec.Struct, rename="camel"):
    session: object = None
    sso_expires: object = None  # ms left
    collission: object = None
    user_id: object = None
    iserver: object = None


def tickle(body: object) -> Tickle:
    """The answer to ``/tickle``. ``hmds.error`` ("no bridge") is normal and ignored.

    Raises:
        WireError: Not an object, or a status that cannot be read.
    """
    value = parsed(body)
    row = fields.payload(value, _Tickle, "tickle")
    status = row.iserver.get("authStatus") if isinstance(row.iserver, dict) else None
    return Tickle(
        session=fields.text(row.session),
        auth=None if status is None else auth_status(status),
        error=error_text(value),
        sso_expires_ms=fields.lenient(fields.integer, row.sso_expires, "ssoExpires"),
        user_id=fields.text(row.user_id),
        collision=fields.lenient(fields.flag, row.collission, "collission"),
    )


class _Accounts(msgspec.Struct, rename="camel"):
    accounts: object = None
    acct_props: object = None  # by account
    aliases: object = None  # by account
    selected_account: object = None
    session_id: object = None
    is_paper: object = None


def brokerage_accounts(body: object) -> Accounts:
    """The answer to ``/iserver/accounts`` (the same as the ``args`` of topic ``act``).

    Raises:
        WireError: Not an object, an error, or without a list of accounts.
    """
    row = fields.payload(fields.mapping(body, "iserver/accounts"), _Accounts, "iserver/accounts")
    if not isinstance(row.accounts, list):
        raise WireError("iserver/accounts: the list of accounts is missing.")
    aliases = row.aliases if isinstance(row.aliases, dict) else {}
    properties = row.acct_props if isinstance(row.acct_props, dict) else {}
    accounts = []
    for name in fields.words(row.accounts):
        own = properties.get(name)
        own = own if isinstance(own, dict) else {}
        accounts.append(
            Account(
                account_id=name,
                alias=fields.text(aliases.get(name)) or name,
                supports_fractions=own.get("supportsFractions") is True,
                supports_cash_quantity=own.get("supportsCashQty") is True,
            )
        )
    return Accounts(
        accounts=tuple(accounts),
        selected=fields.text(row.selected_account),
        is_paper=fields.flag(row.is_paper, "isPaper"),
        session_id=fields.text(row.session_id),
    )


class _PortfolioAccount(msgspec.Struct, rename="camel"):
    id: object = None
    account_id: object = None
    account_title: object = None
    currency: object = None
    type: object = None
    trading_type: object = None
    brokerage_access: object = None
    parent: object = None


def portfolio_accounts(body: object) -> tuple[PortfolioAccount, ...]:
    """The answer to ``/portfolio/accounts`` and ``/portfolio/subaccounts``.

    Raises:
        WireError: Not an array of objects, an error, or an account without an id.
    """
    return fields.each(fields.array(body, "portfolio/accounts"), portfolio_account, None)


def portfolio_account(item: object) -> PortfolioAccount:
    """One of them; also the answer to ``/portfolio/{account}/meta``.

    Raises:
        WireError: As ``portfolio_accounts``.
    """
    row = fields.payload(parsed(item), _PortfolioAccount, "portfolio/accounts")
    account_id = fields.text(row.account_id) or fields.text(row.id)
    parent = row.parent.get("accountId") if isinstance(row.parent, dict) else None
    return PortfolioAccount(
        account_id=fields.required(account_id, "portfolio/accounts: the account id"),
        title=fields.text(row.account_title) or "",
        currency=fields.text(row.currency) or "",
        kind=fields.text(row.type) or "",
        trading_type=fields.text(row.trading_type) or "",
        can_trade=fields.lenient(fields.flag, row.brokerage_access, "brokerageAccess"),
        parent=fields.text(parent),
    )
