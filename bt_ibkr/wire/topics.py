"""Client-to-server text of the WebSocket: ``TOPIC``, ``TOPIC+TARGET`` or ``TOPIC+TARGET+{JSON}``."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

#: Keep-alive of the socket, wanted at least once a minute; answered four times (recorded 2026-04).
TIC = "tic"


def subscribe_market_data(conid_ex: str, fields: Iterable[str]) -> str:
    """``smd``: top of book of ``conid_ex`` (``265598``, ``265598@NASDAQ``); field tags as text."""
    body = msgspec.json.encode({"fields": list(fields)}).decode()
    return f"smd+{conid_ex}+{body}"


def unsubscribe_market_data(conid_ex: str) -> str:
    """``umd``; the server does not answer it."""
    return f"umd+{conid_ex}+{{}}"


def subscribe_depth(account: str, conid: int, exchange: str = "") -> str:
    """``sbd``: BookTrader's ladder of one instrument; an account has one at a time."""
    return f"sbd+{account}+{conid}" + (f"+{exchange}" if exchange else "")


def unsubscribe_depth(account: str) -> str:
    """``ubd``: the account's ladder; the server does not answer it."""
    return f"ubd+{account}"


def subscribe_orders() -> str:
    """``sor``; never with filters, which silence it hours later."""
    return "sor+{}"


def unsubscribe_orders() -> str:
    return "uor+{}"


def subscribe_executions(*, days: int = 1, realtime_only: bool = False) -> str:
    """``str``; replays ``days`` trading days (1 to 7) of executions unless ``realtime_only``."""
    if realtime_only:
        return 'str+{"realtimeUpdatesOnly":true}'
    return f'str+{{"realtimeUpdatesOnly":false,"days":{days}}}'


def unsubscribe_executions() -> str:
    """``utr``, bare: executions are the one topic that is left without braces."""
    return "utr"


def subscribe_pnl() -> str:
    return "spl+{}"


def unsubscribe_pnl() -> str:
    return "upl+{}"


def subscribe_ledger(account: str) -> str:
    """``sld``: the ledger of one account, every 10 s."""
    return f"sld+{account}"


def unsubscribe_ledger(account: str) -> str:
    return f"uld+{account}+{{}}"


def subscribe_summary(account: str) -> str:
    return f"ssd+{account}"


def unsubscribe_summary(account: str) -> str:
    return f"usd+{account}+{{}}"
