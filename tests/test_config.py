"""Settings and clocks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_S, ManualClock, ScaledClock, SystemClock
from bt_ibkr.config import DEFAULT_GATEWAY, SessionSettings, Trust, rest_base
from bt_ibkr.errors import UsageError
from bt_ibkr.login import GatewayLogin, Login, NoLogin, OAuth2Login, TokenLogin


@pytest.mark.parametrize(
    ("base", "socket"),
    [
        (DEFAULT_GATEWAY, "wss://localhost:5000/v1/api/ws"),
        ("http://127.0.0.1:8080/v1/api", "ws://127.0.0.1:8080/v1/api/ws"),
        ("http://127.0.0.1:8080/v1/api/", "ws://127.0.0.1:8080/v1/api/ws"),
        ("https://[::1]:5000/v1/api", "wss://[::1]:5000/v1/api/ws"),
        ("HTTPS://localhost:5000/v1/api", "wss://localhost:5000/v1/api/ws"),
    ],
)
def test_the_socket_is_beside_the_rest_base(base: str, socket: str) -> None:
    assert SessionSettings(base_url=base).websocket_url == socket


@pytest.mark.parametrize(
    "base", ["", "localhost:5000", "ftp://localhost/v1/api", "https://", "/v1/api", "ws://localhost/v1/api"]
)
def test_what_is_no_address(base: str) -> None:
    with pytest.raises(UsageError) as caught:
        SessionSettings(base_url=base)
    assert repr(base) in caught.value.message
    assert DEFAULT_GATEWAY in caught.value.remedy


@pytest.mark.parametrize(
    "base", ["http://localhost:port/v1/api", "http://localhost:99999/v1/api", "http://[::1/v1"]
)
def test_an_address_with_an_impossible_host_or_port(base: str) -> None:
    with pytest.raises(UsageError):
        SessionSettings(base_url=base)


@pytest.mark.parametrize(
    "name",
    [
        "request_timeout_s", "connect_timeout_s", "tickle_interval_s", "silence_s", "tic_interval_s",
        "renew_market_data_s", "reconnect_first_s", "reconnect_longest_s",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_durations_are_above_zero(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        SessionSettings(**{name: value})  # type: ignore[arg-type]


def test_policies_towards_other_logins() -> None:
    with pytest.raises(UsageError, match="'takeover' is no policy") as caught:
        SessionSettings(competing="takeover")  # type: ignore[arg-type]
    assert "take_over_once" in caught.value.remedy


def test_frozen_and_strict() -> None:
    settings = SessionSettings()
    with pytest.raises(AttributeError):
        settings.paced = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        SessionSettings(DEFAULT_GATEWAY)  # type: ignore[call-arg]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"base_urls": "x"}, SessionSettings)
    assert msgspec.convert({"base_url": "http://h/v1/api"}, SessionSettings).base_url == "http://h/v1/api"


def test_defaults_keep_to_ibkrs_figures() -> None:
    settings = SessionSettings()
    # The session idles out after five minutes, the socket wants a tic a minute, market data ends after ten.
    assert settings.tickle_interval_s <= 60
    assert settings.tic_interval_s < 60
    assert settings.renew_market_data_s < 600
    # Heartbeats come every ten seconds: one may be missed, and a dead socket is found within twenty. IBKR itself
    # gives up after ten.
    assert 15 < settings.silence_s < 20
    assert settings.request_timeout_s > 10
    assert settings.paced


def test_trust(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        Trust(ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(UsageError):
        Trust(ca_file=str(tmp_path))
    present = tmp_path / "some.pem"
    present.write_text("x", encoding="ascii")
    with pytest.raises(UsageError, match="both"):
        Trust(ca_file=str(present), insecure=True)
    assert Trust(ca_file=str(present)).ca_file == str(present)
    assert not Trust().insecure


# --- clocks ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**18)))
def test_a_manual_clock_never_steps_back(moments: list[int]) -> None:
    clock = ManualClock(5)
    seen = [clock.now_ns()]
    for moment in moments:
        clock.set_ns(moment)
        seen.append(clock.now_ns())
    assert seen == sorted(seen)
    assert clock.now_ns() == max([5, *moments])
    assert (clock.wall_s(0), clock.wall_s(1)) == (0.0, math.inf)


def test_a_scaled_clock_stands_until_started(monkeypatch: pytest.MonkeyPatch) -> None:
    wall: list[Any] = [1_000]
    monkeypatch.setattr("bt_ibkr.clock.time.monotonic_ns", lambda: wall[0])
    clock = ScaledClock(7 * NS_PER_S, speed=60.0)
    wall[0] += NS_PER_S
    assert clock.now_ns() == 7 * NS_PER_S
    clock.restart()
    wall[0] += NS_PER_S // 2
    assert clock.now_ns() == 37 * NS_PER_S
    assert clock.wall_s(60 * NS_PER_S) == pytest.approx(1.0)


def test_the_system_clock() -> None:
    clock = SystemClock()
    assert clock.now_ns() > 1_700_000_000 * NS_PER_S
    assert clock.wall_s(NS_PER_S) == 1.0


@pytest.mark.parametrize(
    "address",
    [
        "http://user:hunter2@localhost:5000/v1/api", "https://hunter2@localhost/v1/api", "ftp://u:hunter2@localhost",
        "https://localhost/v1/api?token=hunter2", "https://localhost/v1/api#hunter2", "u:hunter2@localhost:5000",
        "http://u:hunter2@[::1/v1/api",
    ],
)  # fmt: skip
def test_an_address_with_a_password_is_refused_and_not_repeated(address: str) -> None:
    for make in (lambda: SessionSettings(base_url=address), lambda: rest_base(address)):
        with pytest.raises(UsageError) as caught:
            make()
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("given_address", "base"),
    [
        ("https://localhost:5000", DEFAULT_GATEWAY),
        ("https://localhost:5000/", DEFAULT_GATEWAY),
        ("https://localhost:5000/v1/api/", DEFAULT_GATEWAY),
        ("https://proxy/ibkr/v1/api", "https://proxy/ibkr/v1/api"),
    ],
)
def test_an_address_without_a_path_is_completed(given_address: str, base: str) -> None:
    assert rest_base(given_address) == base


@pytest.mark.parametrize(
    "address", ["https://localhost:5000/v1", "http://localhost/sso/Login", "https://h/api"]
)
def test_an_address_of_another_path_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="does not end in /v1/api"):
        rest_base(address)


_TOKEN = TokenLogin(token="/somewhere/token")
_CLIENT = OAuth2Login(client_id="c", key_id="k", private_key="/somewhere/key", credential="u")


@pytest.mark.parametrize(
    ("login", "base", "insecure", "fine"),
    [
        (_TOKEN, "http://192.0.2.1/v1/api", False, False),
        (_TOKEN, "https://192.0.2.1/v1/api", True, False),
        (_TOKEN, "https://192.0.2.1/v1/api", False, True),
        (_TOKEN, "http://127.0.0.1:1/v1/api", False, True),
        (_TOKEN, "https://localhost:1/v1/api", True, True),
        (_TOKEN, "http://localhost.example.com/v1/api", False, False),
        (_CLIENT, "http://192.0.2.1/v1/api", False, False),
        (GatewayLogin(), "http://192.0.2.1/v1/api", False, True),
        (NoLogin(), "https://192.0.2.1/v1/api", True, True),
    ],
)
def test_a_credential_leaves_this_machine_encrypted_or_not_at_all(
    login: Login, base: str, insecure: bool, fine: bool
) -> None:
    def make() -> SessionSettings:
        return SessionSettings(base_url=base, login=login, trust=Trust(insecure=insecure))

    if fine:
        assert make().base_url == base
        return
    with pytest.raises(UsageError, match="would send a credential") as caught:
        make()
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("base", "speed"),
    [(DEFAULT_GATEWAY, 0.0), (DEFAULT_GATEWAY, math.nan), ("https://api.ibkr.com/v1/api", 20.0)],
)
def test_limits_run_on_another_clock_on_this_machine_only(base: str, speed: float) -> None:
    with pytest.raises(UsageError, match="pacing_speed"):
        SessionSettings(base_url=base, pacing_speed=speed)
