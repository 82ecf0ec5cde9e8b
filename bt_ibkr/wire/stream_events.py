"""What WebSocket frames other than market data hold, from the raw JSON of their ``args`` or ``result``.

Documents and wire differ: ``ntf`` and ``blt`` hold arrays, ``sts`` holds only what changed, ``sor`` sends an
order whole once and then its changed fields, or its id alone. A frame may come twice.
"""

from __future__ import annotations

import msgspec

from bt_ibkr.errors import WireError
from bt_ibkr.model.order import Execution, OrderReport
from bt_ibkr.model.portfolio import AccountPnl, LedgerLine
from bt_ibkr.wire import fields, portfolio, session
from bt_ibkr.wire.json import parsed
from bt_ibkr.wire.order_answers import Prompt, prompt
from bt_ibkr.wire.order_reports import live_order, trades


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A text for people (topic ``ntf``)."""

    notice_id: str
    text: str
    title: str | None = None
    url: str | None = None


class Bulletin(msgspec.Struct, frozen=True, kw_only=True):
    """A text about exchanges or systems (topic ``blt``)."""

    bulletin_id: str
    message: str
    exchanges: str | None = None


class StatusPatch(msgspec.Struct, frozen=True, kw_only=True):
    """What changed of the session's state (topic ``sts``); ``None`` for what the frame did not name."""

    authenticated: bool | None = None
    established: bool | None = None
    competing: bool | None = None
    connected: bool | None = None
    message: str | None = None
    server_name: str | None = None
    server_version: str | None = None

    def applied_to(self, status: session.AuthStatus) -> session.AuthStatus:
        """``status`` with what this names."""
        named = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(status, **named)


def order_reports(args: object, *, refused: fields.Refuser | None = None) -> tuple[OrderReport, ...]:
    """Topic ``sor``.

    Args:
        args: Raw JSON (or decoded).
        refused: Told of an order that cannot be read; the others are returned.

    Raises:
        WireError: Not an array of objects, or (without ``refused``) an order that cannot be read.
    """
    return fields.each(_items(args, "sor"), live_order, refused)


def executions(args: object, *, refused: fields.Refuser | None = None) -> tuple[Execution, ...]:
    """Topic ``str``. Each execution comes again with its commission, and all of them on every subscription.

    Raises:
        WireError: As ``order_reports``.
    """
    return trades(_items(args, "str"), refused=refused)


def account_pnl(args: object) -> tuple[AccountPnl, ...]:
    """Topic ``spl``.

    Raises:
        WireError: Not a map of objects, or a figure that is no number.
    """
    return portfolio.account_pnl(parsed(args))


def ledger_lines(result: object) -> tuple[LedgerLine, ...]:
    """Topic ``sld``; blank lines say that a currency did not change and are left out, as is the text that
    answers an unsubscription.

    Raises:
        WireError: Not an array of objects, or a number that is none.
    """
    return fields.each(_result(result, "sld"), portfolio.ledger_update, None)


def summary_lines(result: object) -> tuple[portfolio.SummaryValue, ...]:
    """Topic ``ssd``; blank lines and texts as for ``ledger_lines``.

    Raises:
        WireError: Not an array of objects, or one without a key.
    """
    return fields.each(_result(result, "ssd"), _summary_line, None)


def _summary_line(item: object) -> portfolio.SummaryValue | None:
    row = _object(item, "ssd")
    key = fields.required(fields.text(row.get("key")), "ssd: key")
    value = portfolio.summary_value(key, item)
    return None if value.amount is None and value.text is None else value


def notices(args: object) -> tuple[Notice | Prompt, ...]:
    """Topic ``ntf``: notices, and prompts about an order that want an answer.

    Raises:
        WireError: Not an object or array of objects, or a prompt without its ids.
    """
    return fields.each(_items(args, "ntf"), _notice, None)


def _notice(item: object) -> Notice | Prompt:
    row = _object(item, "ntf")
    if row.get("prompt") is True or "reqId" in row:
        return prompt(row)
    return Notice(
        notice_id=fields.text(row.get("id")) or "",
        text=fields.text(row.get("text")) or "",
        title=fields.text(row.get("title")),
        url=fields.text(row.get("url")),
    )


def bulletins(args: object) -> tuple[Bulletin, ...]:
    """Topic ``blt``.

    Raises:
        WireError: Not an object or array of objects.
    """
    return fields.each(_items(args, "blt"), _bulletin, None)


def _bulletin(item: object) -> Bulletin:
    row = _object(item, "blt")
    return Bulletin(
        bulletin_id=fields.text(row.get("id")) or "",
        message=fields.text(row.get("message")) or "",
        exchanges=fields.text(row.get("exchanges")),
    )


class _Status(msgspec.Struct, rename="camel"):
    authenticated: object = None
    established: object = None
    competing: object = None
    connected: object = None
    message: object = None
    server_name: object = None
    server_version: object = None


def status_patch(args: object) -> StatusPatch:
    """Topic ``sts``: whole at first, later only what changed.

    Raises:
        WireError: Not an object, or a flag that is no truth value.
    """
    row = fields.payload(parsed(args), _Status, "sts")
    return StatusPatch(
        authenticated=fields.flag(row.authenticated, "sts: authenticated"),
        established=fields.flag(row.established, "sts: established"),
        competing=fields.flag(row.competing, "sts: competing"),
        connected=fields.flag(row.connected, "sts: connected"),
        message=row.message if isinstance(row.message, str) else None,
        server_name=fields.text(row.server_name),
        server_version=fields.text(row.server_version),
    )


def accounts(args: object) -> session.Accounts:
    """Topic ``act``.

    Raises:
        WireError: As ``session.brokerage_accounts``.
    """
    return session.brokerage_accounts(args)


def _items(args: object, topic: str) -> list[object]:
    """The elements of ``args``: documents have a single object where the wire has an array."""
    value = parsed(args)
    return [value] if isinstance(value, dict) else fields.array(value, topic)


def _result(result: object, topic: str) -> list[object]:
    value = parsed(result)
    return [] if isinstance(value, str) else _items(value, topic)


def _object(item: object, what: str) -> dict[str, object]:
    """An element that must be an object; unlike an answer, it may hold keys that look like an error's."""
    if not isinstance(item, dict):
        raise WireError(f"{what}: {fields.show(item)} where an object was expected.")
    return item
