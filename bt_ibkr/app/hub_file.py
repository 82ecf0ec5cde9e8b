"""A hub's configuration: ``hub.toml``.

::

    [hub]                         # hub/config.py: HubSettings
    endpoint = "tcp://0.0.0.0:5560"
    key_file = "hub.key"

    [session]                     # as the options of the command
    mode = "paper"
    gateway = "https://localhost:5000/v1/api"

    [login]                       # as a login file; or login = "login.toml" in [session]
    provider = "gateway"

    [risk]                        # as a file of limits; or risk = "limits.toml" in [session]
    max_order_size = 100

    [strategies.alpha]            # hub/access.py: Grant
    key = "…"
"""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from bt_ibkr.app.login_file import login_of, read_login, read_own_file
from bt_ibkr.config import ClearLines, LinesOverflow, SessionSettings
from bt_ibkr.errors import UsageError
from bt_ibkr.hub.config import HubSettings, convert_table, read_settings, take_table
from bt_ibkr.login import GatewayLogin, Login
from bt_ibkr.risk import RiskLimits, limits_of, read_limits

_REMEDY: Final = "docs/hub.md shows what it may say."


class SessionTable(msgspec.Struct, frozen=True, kw_only=True):
    """Table ``session``: what the options of the same names say. Paths begin at the file's folder.

    There is no word for the confirmation of real money: that is given where the hub is started.
    """

    mode: str = ""
    gateway: str = ""
    ca_file: str = ""
    insecure: bool = False
    login: str = ""
    competing: str = ""
    region: str = ""
    journal: str = ""
    risk: str = ""
    market_data_lines: int = SessionSettings().market_data_lines
    lines_overflow: LinesOverflow = SessionSettings().lines_overflow
    clear_lines: ClearLines = SessionSettings().clear_lines


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        settings: Of the hub.
        session: As written, paths located.
        login: Of table ``login`` or the file that ``session`` names.
        risk: The limits likewise.
    """

    settings: HubSettings
    session: SessionTable
    login: Login
    risk: RiskLimits


def read_hub_file(path: str, **given: Any) -> HubFile:
    """The configuration in a file; without a path the defaults.

    Args:
        given: Values of ``HubSettings`` that go before the file's; ``None`` is none.

    Raises:
        UsageError: It cannot be read, others may change it, or it says something that means nothing.
    """
    if not path:
        settings, _ = read_settings("", source="", folder=Path(), **given)
        return HubFile(settings=settings, session=SessionTable(), login=GatewayLogin(), risk=RiskLimits())
    folder = Path(path).parent
    text = read_own_file(path, "--config", _REMEDY)
    settings, tables = read_settings(text, source=path, folder=folder, **given)
    session = SessionTable(
        **convert_table(SessionTable, take_table(tables, "session", path), f"{path}, [session]")
    )
    places = {name: getattr(session, name) for name in ("ca_file", "login", "journal", "risk")}
    session = msgspec.structs.replace(
        session, **{name: str(folder / place) for name, place in places.items() if place}
    )
    login, risk = _login(tables, session, path, folder), _risk(text, tables, session, path)
    if tables:
        raise UsageError(
            f"{path}: there is no table [{next(iter(tables))}].",
            remedy="Tables: hub, session, login, risk, strategies.NAME.",
        )
    return HubFile(settings=settings, session=session, login=login, risk=risk)


def _login(tables: dict[str, Any], session: SessionTable, path: str, folder: Path) -> Login:
    table = take_table(tables, "login", path)
    if table and session.login:
        raise UsageError(
            f"{path}: [login] was given beside login = {session.login!r} in [session].",
            remedy="Give one of them.",
        )
    if session.login:
        return read_login(session.login)
    return login_of(table, f"{path}, [login]", folder) if table else GatewayLogin()


def _risk(text: str, tables: dict[str, Any], session: SessionTable, path: str) -> RiskLimits:
    table = take_table(tables, "risk", path)
    if table and session.risk:
        raise UsageError(
            f"{path}: [risk] was given beside risk = {session.risk!r} in [session].",
            remedy="Give one of them.",
        )
    if session.risk:
        return read_limits(session.risk)
    # Read once more: limits are the decimals that are written.
    exact = tomllib.loads(text, parse_float=Decimal).get("risk", {}) if table else {}
    return limits_of(exact, source=f"{path}, [risk]") if exact else RiskLimits()
