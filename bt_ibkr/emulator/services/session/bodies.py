"""Bodies of the session's answers, with every key of the recorded ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.emulator.services.session.state import SessionState, Tier

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_MAC = "02:00:00:00:00:00"
SERVER_NAME = "Emulator01"
SERVER_VERSION = "Build 10.44.1d, Mar 3, 2026 1:55:32 PM"
SERVER_INFO = {"serverName": SERVER_NAME, "serverVersion": SERVER_VERSION}
_ALL_PERIODS = ["*"]
_SHORT_PERIODS = ["2h", "1d", "2d", "1w", "1m"]
_CHART_PERIODS = {
    kind: _SHORT_PERIODS if kind in ("OPT", "FOP") else _ALL_PERIODS
    for kind in ("STK", "CFD", "OPT", "FOP", "WAR", "IOPT", "FUT", "CASH", "IND", "BOND", "FUND")
} | dict.fromkeys(("CMDTY", "PHYSS", "CRYPTO"), _ALL_PERIODS)
_FEATURES: dict[str, object] = {
    "showGFIS": True,
    "showEUCostReport": False,
    "allowEventContract": True,
    "allowFXConv": True,
    "allowFinancialLens": False,
    "allowMTA": True,
    "allowTypeAhead": True,
    "allowEventTrading": True,
    "snapshotRefreshTimeout": 30,
    "liteUser": False,
    "showWebNews": True,
    "research": True,
    "debugPnl": True,
    "showTaxOpt": True,
    "showImpactDashboard": True,
    "allowDynAccount": False,
    "allowCrypto": True,
    "allowFA": False,
    "allowLiteUnderPro": False,
    "allowedAssetTypes": "STK,CFD,OPT,FOP,WAR,FUT,BAG,PDC,CASH,IND,BOND,BILL,FUND,SLB,News,CMDTY,IOPT,ICU,"
    "ICS,PHYSS,CRYPTO",
    "restrictTradeSubscription": False,
    "showUkUserLabels": False,
    "sideBySide": True,
}
_PROPERTIES = {
    "hasChildAccounts": False,
    "supportsCashQty": True,
    "liteUnderPro": False,
    "noFXConv": False,
    "isProp": False,
    "supportsFractions": True,
    "allowCustomerTime": False,
    "autoFx": False,
}


def auth_status(session: SessionState, *, fail: bool) -> dict[str, object]:
    """``auth/status``; ``fail`` adds the key that ``ssodh/init`` and ``tickle`` leave out."""
    if session.tier is Tier.LOGGED_OUT:
        return {
            "authenticated": False,
            "established": False,
            "competing": False,
            "connected": False,
            "MAC": None,
        }
    body: dict[str, object] = {
        "authenticated": session.ready,
        "established": session.ready,
        "competing": session.competing,
        "connected": True,
        "message": "",
        "MAC": _MAC,
        "serverInfo": SERVER_INFO,
        "hardware_info": f"emulator|{_MAC}",
    }
    if fail:
        body["fail"] = session.fail
    return body


def init_status(session: SessionState) -> dict[str, object]:
    """The answer of ``ssodh/init``: a failure is told in ``passed`` and ``fail``, with status 200."""
    body = auth_status(session, fail=False)
    if session.fail:
        body |= {"passed": False, "fail": session.fail}
    return body


def tickle(core: Core) -> dict[str, object]:
    session = core.session
    # With OAuth 1.0a there is no SSO session to tell of (recorded).
    sso = {"ssoExpires": 600_000, "collission": False, "userId": 100_000_001}
    return {
        "session": session.session_id,
        **({} if core.settings.authentication.kind == "oauth1a" else sso),
        "hmds": {"error": "no bridge"},
        "iserver": {"authStatus": auth_status(session, fail=False)},
    }


def sso_validate(core: Core) -> dict[str, object]:
    """Key set as recorded; no value of it means anything but ``LOGIN_TYPE``: 1 live, 2 paper."""
    return {
        "USER_ID": 100_000_001,
        "USER_NAME": core.settings.username,
        "RESULT": True,
        "AUTH_TIME": core.wall_ms(),
        "SF_ENABLED": False,
        "IS_FREE_TRIAL": False,
        "CREDENTIAL": core.settings.username,
        "IP": "127.0.0.1",
        "EXPIRES": 600_000,
        "QUALIFIED_FOR_MOBILE_AUTH": None,
        "LANDING_APP": "UNIVERSAL",
        "IS_MASTER": False,
        "lastAccessed": core.wall_ms(),
        "LOGIN_TYPE": 2 if core.settings.is_paper else 1,
        "PAPER_USER_NAME": core.settings.username,
        "features": {"env": "PROD", "wlms": True, "realtime": True, "bond": True, "optionChains": True},
        "region": "NJ",
        "SFT": 0,
        "IS_PENDING_APPLICANT": False,
        "HARDWARE_INFO": f"emulator|{_MAC}",
        "UNIQUE_LOGIN_ID": core.session.session_id[:16],
        "SF_CONFIG": None,
        "CREDENTIAL_TYPE": 1,
        "ANOMALOUS_LOGIN": False,
        "TOKEN": core.session.session_id,
        "took": 1,
    }


def accounts(core: Core) -> dict[str, object]:
    """``/iserver/accounts``, and the ``args`` of the ``act`` frame."""
    ids = list(core.session.accounts)
    settings = core.settings
    advisor = bool(settings.fa_master)
    return {
        "accounts": ids,
        "acctProps": {one: _PROPERTIES | {"hasChildAccounts": one == settings.fa_master} for one in ids},
        "aliases": ({"All": "All"} if advisor else {}) | {account: account for account in ids},
        "allowFeatures": _FEATURES | {"allowFA": advisor},
        "chartPeriods": _CHART_PERIODS,
        "groups": ["All", *settings.fa_groups] if advisor else [],
        "profiles": [],
        "selectedAccount": core.session.selected,
        "serverInfo": SERVER_INFO,
        "sessionId": f"{core.session.session_id[:8]}.{core.session.session_id[8:16]}",
        "isFT": False,
        "isPaper": core.settings.is_paper,
    }


def status_frame(core: Core) -> dict[str, object]:
    """``args`` of the full ``sts`` frame."""
    session = core.session
    return {
        "connected": session.tier is not Tier.LOGGED_OUT,
        "authenticated": session.ready,
        "established": session.ready,
        "competing": session.competing,
        "message": "",
        "fail": session.fail,
        "serverName": SERVER_NAME,
        "serverVersion": SERVER_VERSION,
        "username": core.settings.username,
    }
