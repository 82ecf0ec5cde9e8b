"""From settings to the authenticator they name."""

from __future__ import annotations

from typing import assert_never

from bt_ibkr.clock import Clock, SystemClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.login import GatewayLogin, NoLogin, OAuth1Login, OAuth2Login, TokenLogin
from bt_ibkr.redaction import guard
from bt_ibkr.session.auth.bearer import TokenAuthenticator
from bt_ibkr.session.auth.gateway import GatewayAuthenticator, NoAuthenticator
from bt_ibkr.session.auth.interface import Authenticator, Exchange
from bt_ibkr.session.auth.oauth1a import OAuth1Authenticator
from bt_ibkr.session.auth.oauth2 import OAuth2Authenticator
from bt_ibkr.session.pacing import PacingGate


def build_authenticator(
    settings: SessionSettings, gate: PacingGate, clock: Clock | None = None
) -> Authenticator:
    """The authenticator of ``settings.login``; no key is read yet. From now on logs are redacted.

    Args:
        clock: Wall clock; the machine's unless given.
    """
    guard()
    exchange = Exchange(settings, gate, clock or SystemClock())
    login = settings.login
    match login:
        case GatewayLogin():
            return GatewayAuthenticator(login, exchange)
        case OAuth1Login():
            return OAuth1Authenticator(login, exchange)
        case OAuth2Login():
            return OAuth2Authenticator(login, exchange)
        case TokenLogin():
            return TokenAuthenticator(login, exchange)
        case NoLogin():
            return NoAuthenticator()
        case _:
            assert_never(login)
