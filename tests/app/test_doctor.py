"""``Doctor`` on emulators in good and bad states."""

from __future__ import annotations

import errno
import os
import shutil
import ssl
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jwt
import pytest

from bt_ibkr.app import server_dates
from bt_ibkr.app.control import ControlClient
from bt_ibkr.app.doctor import ROWS, Diagnosis, Doctor, Status
from bt_ibkr.app.login_file import read_login
from bt_ibkr.config import SessionSettings, Trust
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.services.session import bodies
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.login import NoLogin, TokenLogin
from tests.auth.conftest import write_private
from tests.session.conftest import Gateway, Seen

Emulate = Callable[..., EmulatorThread]


@pytest.fixture
def emulate() -> Iterator[Emulate]:
    with ExitStack() as stack:

        def start(**settings: Any) -> EmulatorThread:
            plain: dict[str, Any] = {
                "speed": "lockstep",
                "pacing": "off",
                "synthetic_instruments": ("AAPL",),
                "history_days": 0,
            }
            return stack.enter_context(EmulatorThread(EmulatorSettings(**(plain | settings))))

        yield start


def fault(emulator: EmulatorThread, **spec: Any) -> None:
    with closing(ControlClient(emulator.control)) as control:
        control.post("/fault", spec)


async def examine(url: str, *, wall_s: Callable[[], float] = time.time, **settings: Any) -> Diagnosis:
    chosen = {"paced": False, "request_timeout_s": 5.0} | settings
    return await Doctor(
        SessionSettings(base_url=url, **chosen), folder=Path(__file__).parent, wall_s=wall_s
    ).examine()


def rows(found: Diagnosis) -> dict[str, Status]:
    assert tuple(row.name for row in found.rows) == ROWS
    for row in found.rows:
        assert row.text
        if row.status in (Status.WARN, Status.FAIL) and row.name != "authenticated":
            assert row.remedy, row
    assert found.healthy is not any(row.status is Status.FAIL for row in found.rows)
    return {row.name: row.status for row in found.rows}


def text(found: Diagnosis, name: str) -> str:
    return next(row.text for row in found.rows if row.name == name)


GOOD = {
    "gateway reachable": Status.OK,
    "TLS": Status.SKIP,
    "authenticated": Status.OK,
    "competing": Status.OK,
    "account": Status.OK,
    "market data": Status.OK,
    "clock": Status.OK,
    "pacing budget": Status.OK,
    "disk": Status.OK,
    "key files": Status.SKIP,
}


@pytest.fixture(autouse=True)
def _room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, 5_000_000_000)


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, free))


async def test_healthy_on_paper(emulate: Emulate) -> None:
    found = await examine(emulate(accounts=("DU1111111", "DU2222222")).url)
    assert rows(found) == GOOD
    assert text(found, "account") == "DU1111111 is a paper account; also DU2222222"


async def test_healthy_with_real_money(emulate: Emulate) -> None:
    found = await examine(emulate(accounts=("U1111111",)).url)
    assert rows(found) == GOOD
    assert "real money" in text(found, "account")


async def test_account_whose_signs_contradict(emulate: Emulate) -> None:
    found = await examine(emulate(accounts=("DU1111111",), paper="no").url)
    assert rows(found) == GOOD | {"account": Status.FAIL}


async def test_account_that_nobody_calls_paper(emulate: Emulate, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bodies.accounts
    monkeypatch.setattr(bodies, "accounts", lambda core: whole(core) | {"isPaper": None})
    found = await examine(emulate(accounts=("DU1111111",)).url)
    assert rows(found) == GOOD | {"account": Status.FAIL}
    assert text(found, "account").startswith("DU1111111 is not reported as paper")


async def test_nobody_there() -> None:
    found = await examine("http://127.0.0.1:9/v1/api")
    told = rows(found)
    assert told["gateway reachable"] is Status.FAIL
    assert [name for name, status in told.items() if status is Status.SKIP] == [
        "TLS", "authenticated", "competing", "account", "market data", "clock", "pacing budget", "key files",
    ]  # fmt: skip
    assert told["disk"] is Status.OK


async def test_certificate_not_trusted_trusted_and_taken_unseen(emulate: Emulate, tmp_path: Path) -> None:
    url = emulate(tls=True).url
    refused = rows(await examine(url))
    assert refused["gateway reachable"] is Status.OK
    assert refused["TLS"] is Status.FAIL
    assert refused["authenticated"] is Status.SKIP

    host, port = url.removeprefix("https://").split("/")[0].split(":")
    file = tmp_path / "gateway.pem"
    file.write_text(ssl.get_server_certificate((host, int(port))), encoding="ascii")
    assert rows(await examine(url, trust=Trust(ca_file=str(file)))) == GOOD | {"TLS": Status.OK}

    unseen = await examine(url, trust=Trust(insecure=True))
    assert rows(unseen) == GOOD | {"TLS": Status.WARN}
    assert unseen.healthy


async def test_nobody_logged_in(emulate: Emulate) -> None:
    found = await examine(emulate(login="logged_out").url)
    told = rows(found)
    assert told["gateway reachable"] is Status.OK
    assert told["authenticated"] is Status.FAIL
    assert "in a browser" in next(row.remedy for row in found.rows if row.name == "authenticated")
    assert told["account"] is told["market data"] is Status.SKIP
    assert told["clock"] is told["pacing budget"] is Status.OK


async def test_brokerage_session_that_nobody_has_is_opened(emulate: Emulate) -> None:
    assert rows(await examine(emulate(login="no_bridge").url)) == GOOD


async def test_session_of_another_login_is_left_alone(emulate: Emulate) -> None:
    emulator = emulate()
    fault(emulator, kind="compete")
    told = rows(await examine(emulator.url))
    assert told["authenticated"] is Status.WARN
    assert told["competing"] is Status.FAIL
    assert told["account"] is Status.SKIP
    assert emulator.call(lambda server: server.core.session.competing)


async def test_init_that_fails(emulate: Emulate) -> None:
    emulator = emulate(login="no_bridge")
    fault(emulator, kind="init_fails", fail="not today")
    found = await examine(emulator.url)
    assert rows(found)["authenticated"] is Status.FAIL
    assert "not today" in text(found, "authenticated")


@pytest.mark.parametrize(
    ("code", "status"),
    [("DPB", Status.WARN), ("ZB", Status.WARN), ("N", Status.FAIL), ("O", Status.FAIL), ("RpB", Status.OK)],
)
async def test_market_data(emulate: Emulate, code: str, status: Status) -> None:
    emulator = emulate()
    fault(emulator, kind="quality", code=code)
    found = await examine(emulator.url)
    assert rows(found) == GOOD | {"market data": status}
    assert code in text(found, "market data")


async def test_no_word_on_market_data(emulate: Emulate) -> None:
    emulator = emulate()
    fault(emulator, kind="not_entitled", conid=265598)
    found = await examine(emulator.url)
    assert rows(found) == GOOD | {"market data": Status.FAIL}
    assert "not told" in text(found, "market data")
    assert not found.healthy


@pytest.mark.parametrize(
    ("offset_s", "status"),
    [(3, Status.OK), (10, Status.WARN), (-10, Status.WARN), (40, Status.FAIL), (-40, Status.FAIL)],
)
async def test_clocks_that_differ(emulate: Emulate, offset_s: int, status: Status) -> None:
    emulator = emulate()
    fault(emulator, kind="skew", offset_s=offset_s)
    found = await examine(emulator.url)
    assert rows(found) == GOOD | {"clock": status}
    assert ("ahead of ours" if offset_s > 0 else "behind ours") in text(found, "clock")


async def test_too_many_requests(emulate: Emulate) -> None:
    emulator = emulate()
    fault(emulator, kind="http", action="status", status=429, path="/iserver/accounts")
    told = rows(await examine(emulator.url))
    assert told["pacing budget"] is Status.FAIL
    assert told["authenticated"] is Status.OK
    assert told["account"] is told["market data"] is Status.SKIP


@pytest.mark.parametrize("action", ["html", "malformed", "empty"])
async def test_answers_that_are_none(emulate: Emulate, action: str) -> None:
    emulator = emulate()
    fault(emulator, kind="http", action=action, path="/iserver/accounts", count=0)
    assert rows(await examine(emulator.url))["account"] is Status.FAIL
    fault(emulator, kind="http", action=action, path="/tickle", count=0)
    told = rows(await examine(emulator.url))
    assert told["gateway reachable"] is Status.OK
    assert told["authenticated"] is Status.FAIL


@pytest.mark.parametrize("place", ["message", "error"])
async def test_a_server_that_repeats_the_credential(tmp_path: Path, place: str) -> None:
    """Its words are shown, the secret in them is not."""
    token = write_private(tmp_path / "token", "sk-0123456789-very-secret")
    gateway = Gateway()
    await gateway.start()

    def echo(seen: Seen) -> Any:
        status = {"authenticated": False, "connected": False, "message": seen.headers["Authorization"]}
        return {"error": status["message"]} if place == "error" else {"iserver": {"authStatus": status}}

    gateway.answers = dict.fromkeys(("POST /tickle", "POST /iserver/auth/ssodh/init"), echo)
    try:
        found = await examine(gateway.url, login=TokenLogin(token=str(token)))
    finally:
        await gateway.stop()
    assert rows(found)["authenticated"] is Status.FAIL
    assert "***" in text(found, "authenticated")
    assert "very-secret" not in str(found)


@pytest.mark.parametrize(
    ("free", "status"), [(5_000_000_000, Status.OK), (500_000_000, Status.WARN), (5_000_000, Status.FAIL)]
)
async def test_disk(emulate: Emulate, monkeypatch: pytest.MonkeyPatch, free: int, status: Status) -> None:
    room(monkeypatch, free)
    assert rows(await examine(emulate().url)) == GOOD | {"disk": status}


async def test_key_files(emulate: Emulate, tmp_path: Path) -> None:
    emulator = emulate(
        authentication=AuthenticationSettings(kind="token", key_folder=str(tmp_path)), login="ready"
    )
    token = tmp_path / "token"
    login = TokenLogin(token=str(token))
    good = await examine(emulator.url, login=login)
    assert rows(good) == GOOD | {"key files": Status.OK}

    secret = token.read_text(encoding="utf-8").strip()
    token.chmod(0o644)
    bad = await examine(emulator.url, login=login)
    told = rows(bad)
    assert told["key files"] is told["authenticated"] is Status.FAIL
    assert f"chmod 600 {token}" in bad.rows[-1].remedy
    assert secret not in str(bad)

    missing = rows(await examine(emulator.url, login=TokenLogin(token=str(tmp_path / "absent"))))
    assert missing["key files"] is Status.FAIL


async def test_one_account_of_several_that_contradicts(emulate: Emulate) -> None:
    found = await examine(emulate(accounts=("DU1111111", "U2222222"), paper="yes").url)
    assert rows(found) == GOOD | {"account": Status.FAIL}
    assert text(found, "account").startswith("U2222222")


@pytest.mark.parametrize("trouble", ["full", "not there"])
async def test_disk_that_takes_nothing(
    emulate: Emulate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: str
) -> None:
    """There is room by the figures, but a quota, or no inode, is left: seen by writing alone."""
    folder = tmp_path
    if trouble == "full":

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
    else:
        folder = tmp_path / "absent"
    settings = SessionSettings(base_url=emulate().url, paced=False)
    found = await Doctor(settings, folder=folder).examine()
    assert rows(found) == GOOD | {"disk": Status.FAIL}
    assert str(folder) in text(found, "disk")
    assert not left_in(tmp_path), "nothing is left behind"


@pytest.mark.parametrize(
    ("home", "status", "says"),
    [("not/there/yet", Status.OK, "GB free at"), ("a file", Status.FAIL, "nothing can be written"),
     ("relative", Status.FAIL, "another place in every directory")],
)  # fmt: skip
async def test_disk_where_state_is_kept(
    emulate: Emulate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str, status: Status, says: str
) -> None:
    """The disk of the journals, which is not always that of the user's other files."""
    write_private(tmp_path / "a file", "")
    monkeypatch.setenv("BT_IBKR_HOME", home if home == "relative" else str(tmp_path / home))
    found = await Doctor(SessionSettings(base_url=emulate().url, paced=False)).examine()
    assert rows(found) == GOOD | {"disk": status}
    assert says in text(found, "disk")
    assert home == "relative" or str(tmp_path) in text(found, "disk")


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_server_that_tells_no_time(emulate: Emulate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a ``Date`` nothing is known of the clock: that is told, not passed over."""
    url = emulate().url
    monkeypatch.setattr(server_dates, "parsedate_to_datetime", _no_date)
    assert rows(await examine(url)) == GOOD | {"clock": Status.WARN}


def _no_date(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("kind", ["oauth1a", "oauth2"])
async def test_keys_that_are_none(emulate: Emulate, tmp_path: Path, kind: str) -> None:
    """The file is there and its permissions are right, but what is in it is no key, or another's."""
    emulator = emulate(authentication=AuthenticationSettings(kind=kind, key_folder=str(tmp_path)))  # type: ignore[arg-type]
    login = read_login(str(tmp_path / "login.toml"))
    good = GOOD | {"key files": Status.OK}
    assert rows(await examine(emulator.url, login=login)) == good
    name = "private_encryption.pem" if kind == "oauth1a" else "private_client.pem"
    for content in (
        "no key at all",
        (tmp_path / "access_token_secret").read_text() if kind == "oauth1a" else "x",
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        found = await examine(emulator.url, login=login)
        told = rows(found)
        assert told["key files"] is told["authenticated"] is Status.FAIL
        assert "not a private key" in text(found, "key files")
    # Also where nobody answers: the row does not say ok of what was not read.
    assert rows(await examine("http://127.0.0.1:9/v1/api", login=login))["key files"] is Status.FAIL


async def test_token_that_is_over_or_soon_will_be(emulate: Emulate, tmp_path: Path) -> None:
    emulator = emulate(authentication=AuthenticationSettings(kind="token", key_folder=str(tmp_path)))
    token = tmp_path / "token"
    login = TokenLogin(token=str(token))

    def ending_in(seconds: float) -> None:
        made = jwt.encode({"exp": time.time() + seconds}, "k" * 32)
        token.write_text(made, encoding="utf-8")
        emulator.call(lambda server: hold(server.door.oauth2._issued, made))

    def hold(issued: dict[str, Any], made: str) -> None:
        issued[made] = next(iter(issued.values()))

    ending_in(3600)
    assert rows(await examine(emulator.url, login=login)) == GOOD | {"key files": Status.OK}
    ending_in(120)
    soon = await examine(emulator.url, login=login)
    assert rows(soon) == GOOD | {"key files": Status.OK, "authenticated": Status.WARN}
    assert "the token ends in" in text(soon, "authenticated")
    ending_in(-10)
    over = await examine(emulator.url, login=login)
    assert rows(over)["authenticated"] is Status.FAIL
    assert "over" in text(over, "authenticated")
    assert rows(over)["gateway reachable"] is Status.SKIP, "nobody was asked"
    # The server ends it before its time.
    ending_in(3600)
    emulator.call(lambda server: server.door.expire())
    revoked = await examine(emulator.url, login=login)
    assert rows(revoked)["authenticated"] is Status.FAIL
    assert token.read_text(encoding="utf-8") not in str(revoked) + str(soon) + str(over)


async def test_plain_http_to_another_machine_is_no_way_to_trade() -> None:
    doctor = Doctor(SessionSettings(base_url="http://192.0.2.1/v1/api", login=NoLogin()))
    doctor._look_at_tls()
    assert doctor._rows["TLS"].status is Status.FAIL
