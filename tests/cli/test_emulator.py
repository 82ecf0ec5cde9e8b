"""``bt-ibkr emulator``: every setting as an option, wrong ones told plainly, keys written for a client."""

from __future__ import annotations

import json
import stat
import sys
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bt_ibkr.app.control import ControlClient
from bt_ibkr.app.login_file import read_login
from bt_ibkr.cli.commands import app
from bt_ibkr.cli.emulating import settings_of
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.settings import EmulatorSettings, QuestionLimits
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import UsageError
from bt_ibkr.login import OAuth1Login, OAuth2Login, TokenLogin

#: One value for each option that is not its default, and the setting it makes.
SMALL = ("--port", "0", "--symbol", "AAPL", "--history-days", "0")
EVERY: dict[str, tuple[tuple[str, ...], Any]] = {
    "host": (("--host", "localhost"), "localhost"),
    "port": (("--port", "0"), 0),
    "market": (("--market", "a.parquet:IBM", "--market", "b.parquet:SPY"), ("a.parquet:IBM", "b.parquet:SPY")),
    "synthetic_day": (("--day", "2026-03-04"), "2026-03-04"),
    "synthetic_instruments": (("--symbol", "IBM", "--symbol", "SPY"), ("IBM", "SPY")),
    "universe": (("--universe", "u.csv"), "u.csv"),
    "speed": (("--speed", "60"), 60.0),
    "autostart": (("--no-autostart",), False),
    "fill": (("--fill", "last"), "last"),
    "seed": (("--seed", "7"), 7),
    "tls": (("--tls",), True),
    "pacing": (("--pacing", "strict"), "strict"),
    "penalty_s": (("--penalty-s", "60"), 60.0),
    "pacing_speed": (("--pacing-speed", "30"), 30.0),
    "login": (("--login", "no_bridge"), "no_bridge"),
    "connect_delay_s": (("--connect-delay-s", "0.5"), 0.5),
    "heartbeat_s": (("--heartbeat-s", "5"), 5.0),
    "conflation_ms": (("--conflation-ms", "250"), 250),
    "frames": (("--frames", "binary"), "binary"),
    "smd_lifetime_s": (("--smd-lifetime-s", "0"), 0.0),
    "market_data_lines": (("--market-data-lines", "5"), 5),
    "qualities": (("--quality", "DPB", "--quality", "265598:ZB"), ("DPB", "265598:ZB")),
    "order_status_delay_s": (("--order-status-delay-s", "1"), 1.0),
    "volume_factor": (("--volume-factor", "100"), 100),
    "questions": (("--questions", "all"), "all"),
    "accounts": (("--account", "U1", "--account", "U2"), ("U1", "U2")),
    "paper": (("--paper", "no"), "no"),
    "fa_master": (("--account", "F1", "--fa-master", "F1"), "F1"),
    "fa_groups": (("--account", "F1", "--fa-master", "F1", "--fa-group", "A", "--fa-group", "B"), ("A", "B")),
    "permissions": (("--permission", "STK", "--permission", "OPT"), ("STK", "OPT")),
    "regular_hours": (("--regular-hours",), True),
    "cash": (("--cash", "5000"), 5000.0),
    "currency": (("--currency", "EUR"), "EUR"),
    "commission": (("--commission", "tiered"), "tiered"),
    "margin": (("--margin", "off"), "off"),
    "history_days": (("--history-days", "1"), 1),
    "synthetic_days": (("--days", "3"), 3),
    "synthetic_rate": (("--event-rate", "0.1"), 0.1),
    "username": (("--username", "someone"), "someone"),
    "region": (("--region", "asia"), "asia"),
    "nightly_reset": (("--nightly-reset",), True),
    "after_reset": (("--after-reset", "logged_out"), "logged_out"),
    "maintenance": (("--maintenance", "18:00-22:30"), "18:00-22:30"),
    "after_maintenance": (("--after-maintenance", "ready"), "ready"),
    "idle_s": (("--idle-s", "300"), 300.0),
    "run_on": (("--run-on",), True),
    "parent_pid": (("--parent-pid", "1"), 1),
    "state_file": (("--state", "kept"), "kept"),
    "authentication": (
        (
            "--auth", "oauth2", "--auth-key-folder", "keys", "--auth-skew-s", "30", "--auth-lifetime-s", "600",
            "--auth-consumer-key", "MINE", "--auth-third-party", "--auth-signature-key", "s.pem",
            "--auth-encryption-key", "e.pem", "--auth-dh-parameters", "d.pem", "--auth-client-id", "me",
            "--auth-key-id", "second", "--auth-public-key", "p.pem", "--auth-algorithm", "ES256",
            "--auth-credential", "someone", "--auth-variant", "institutional",
        ),
        AuthenticationSettings(
            kind="oauth2", key_folder="keys", skew_s=30.0, lifetime_s=600.0, consumer_key="MINE", third_party=True,
            signature_key="s.pem", encryption_key="e.pem", dh_parameters="d.pem", client_id="me", key_id="second",
            public_key="p.pem", algorithm="ES256", credential="someone", variant="institutional",
        ),
    ),
    "limits": (
        ("--limits-price-percent", "5", "--limits-size", "50", "--limits-value", "0"),
        QuestionLimits(price_percent=5.0, size=50.0, value=0.0),
    ),
}  # fmt: skip


def parsed(*words: str) -> EmulatorSettings:
    """The settings that these words make."""
    command = typer.main.get_command(app).commands["emulator"]  # type: ignore[attr-defined]
    context = command.make_context("emulator", list(words))
    return settings_of(context.params)


def test_no_setting_lacks_an_option() -> None:
    assert set(EVERY) == set(EmulatorSettings.__struct_fields__)
    assert parsed() == EmulatorSettings()


@pytest.mark.parametrize("field", EVERY)
def test_option_of_each_setting(field: str) -> None:
    words, wanted = EVERY[field]
    assert getattr(parsed(*words), field) == wanted
    assert wanted != getattr(EmulatorSettings(), field)


WRONG: dict[str, tuple[tuple[str, ...], str, str]] = {
    "cash without end": (("--cash", "inf"), "inf", "with an end"),
    "cash that is no number": (("--cash", "nan"), "nan", "with an end"),
    "quality of no instrument": (("--quality", "AAPL:DPB"), "'AAPL:DPB'", "265598:ZB"),
    "lines below 0": (("--market-data-lines", "-1"), "market_data_lines: -1", "0 or more"),
    "empty account": (("--account", ""), "accounts: ''", "DU1234567"),
    "account with a blank": (("--account", "DU 1"), "'DU 1'", "DU1234567"),
    "account twice": (("--account", "DU1", "--account", "DU1"), "DU1", "all different"),
    "empty host": (("--host", ""), "host: ''", "127.0.0.1"),
    "symbol twice": (("--symbol", "AAPL", "--symbol", "AAPL"), "AAPL", "each symbol once"),
    "instrument twice": (("--symbol", "AAPL", "--symbol", "conid:265598"), "conid:265598", "once"),
    "speed too high": (("--speed", "1e9"), "1000000000", "at most 1000000"),
    "no speed": (("--speed", "quick"), "'quick'", "lockstep"),
    "fill model": (("--fill", "magic"), "--fill 'magic'", "quote or last"),
    "price list": (("--commission", "dear"), "--commission 'dear'", "fixed, tiered or none"),
    "region": (("--region", "mars"), "--region 'mars'", "america, europe or asia"),
    "algorithm": (("--auth-algorithm", "none"), "--auth-algorithm 'none'", "RS256, PS256 or ES256"),
    "kind of login": (("--auth", "saml"), "--auth 'saml'", "gateway, oauth1a, oauth2 or token"),
    "nobody has the keys": (("--auth", "token"), "--auth-key-folder", "empty folder"),
    "skew": (("--auth-skew-s", "0"), "skew_s", "above 0"),
    "limit": (("--limits-size", "nan"), "size", "0 or more"),
    "port that is none": (("--port", "soon"), "--port", "-h"),
    "unknown option": (("--colour", "red"), "--colour", "-h"),
    "master of nobody": (("--fa-master", "F1"), "fa_master: 'F1'", "one of the accounts"),
    "window": (("--maintenance", "soon"), "'soon'", "18:00-22:30"),
    "same file twice": (("--market", "t.parquet:IBM", "--market", "./t.parquet:IBM"), "second time", "once"),
    "crossed quotes": (("--market", "crossed.parquet:IBM"), "row 2 leaves the bid 3 above the ask 2", "Leave"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be(here: Callable[..., Any], tmp_path: Path, case: str) -> None:
    import pandas as pd

    stamps = pd.to_datetime([1_772_461_800, 1_772_461_801], unit="s", utc=True)
    sizes = {"bid_size": [1.0, 1.0], "ask_size": [1.0, 1.0], "last": [None, 1.5], "last_size": [None, 1.0]}
    for name, bids in (("t", [1.0, 1.0]), ("crossed", [1.0, 3.0])):
        frame = pd.DataFrame({"ts": stamps, "bid": bids, "ask": [2.0, 2.0]} | sizes)
        frame.astype({"last": float, "last_size": float}).to_parquet(tmp_path / f"{name}.parquet")
    words, says, remedy = WRONG[case]
    ended = here("emulator", *words)
    assert ended.code in (2, 5)
    (error,) = [line for line in ended.err.splitlines() if line.startswith("error:")]
    assert says in error
    assert remedy in ended.err.split("remedy:")[1]
    assert "$" not in ended.err, "not in words of the decoder"
    assert "Traceback" not in ended.err


def test_a_process_with_accounts_limits_and_a_calendar(start: Any) -> None:
    """The options reach the server: FA accounts, a penalty on a fast clock, maintenance."""
    words = (
        "--account", "F1000000", "--account", "U1000001", "--fa-master", "F1000000", "--fa-group", "Growth",
        "--pacing", "strict", "--pacing-speed", "40", "--speed", "lockstep", "--penalty-s", "20",
    )  # fmt: skip
    running = start("emulator", *SMALL, *words)
    (line,) = running.until('"url"')
    told = json.loads(line)
    assert set(told) == {"url", "ws", "control", "pid"}
    with closing(ControlClient(told["control"])) as control:
        assert control.get("/state")["pacing"] == {"strict": True, "speed": 40.0}
    with urllib.request.urlopen(told["url"] + "/iserver/accounts", timeout=10) as answer:
        accounts = json.load(answer)
    assert accounts["isPaper"] is False
    assert "F1000000" in accounts["accounts"]
    running.process.terminate()
    assert running.end().code == 0


@pytest.mark.parametrize(
    ("kind", "login_type"), [("oauth1a", OAuth1Login), ("oauth2", OAuth2Login), ("token", TokenLogin)]
)
def test_keys_are_written_and_a_run_logs_on_with_them(
    start: Any, here: Any, tmp_path: Path, kind: str, login_type: type
) -> None:
    """The emulator in a process of its own, and a run with the login file it made."""
    words = ("--auth", kind, "--auth-key-folder", "keys", "--speed", "lockstep", "--conflation-ms", "0")
    running = start("emulator", *SMALL, *words, "--pacing-speed", "20")
    (line,) = running.until('"url"')
    told = json.loads(line)
    login = Path(told["login_file"])
    assert login == tmp_path / "keys" / "login.toml"
    assert isinstance(read_login(str(login)), login_type)
    if sys.platform != "win32":
        assert stat.S_IMODE(login.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in login.parent.iterdir()} == {0o600}
    run = ("run", "sma_cross", "--mode", "paper", "--gateway", told["url"].removesuffix("/v1/api"), "--json")
    short = ("--data", "AAPL", "--set", "fast=2", "--set", "slow=5", "--to", "2026-03-02T14:45")
    ended = here(*run, *short, "--login", str(login))
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert result["errors"] == []
    assert result["bars"] > 0
    assert f"({kind})" in ended.err, "the banner tells the way to log on"
    refused = here(*run, *short)
    assert refused.code == 8, "without the login nobody is let in"
    running.process.terminate()
    emulator = running.end()
    assert f"--login {login}" in emulator.err
    assert login.read_text(encoding="utf-8") in emulator.err
    for file in login.parent.iterdir():
        secret = file.read_text(encoding="utf-8").strip()
        if file.name not in ("login.toml", "dhparam.pem"):
            assert secret not in emulator.err + ended.err + ended.out + emulator.out


def test_keys_that_no_emulator_made_are_not_replaced(tmp_path: Path) -> None:
    """A folder with keys of a real account: refused, and they are as they were. An emulator's own is filled anew."""
    mine = tmp_path / "private_signature.pem"
    mine.write_text("of a real account", encoding="utf-8")

    def settings(folder: Path) -> EmulatorSettings:
        asked = AuthenticationSettings(kind="oauth1a", key_folder=str(folder))
        return EmulatorSettings(
            speed="lockstep", synthetic_instruments=("AAPL",), history_days=0, authentication=asked
        )

    with pytest.raises(UsageError, match=r"private_signature\.pem, which no emulator made") as caught:
        EmulatorThread(settings(tmp_path)).__enter__()
    assert caught.value.remedy
    assert mine.read_text(encoding="utf-8") == "of a real account"
    for _ in range(2):
        with EmulatorThread(settings(tmp_path / "new")):
            pass
    with pytest.raises(UsageError, match="cannot hold the client's keys"):
        EmulatorThread(settings(mine)).__enter__()
