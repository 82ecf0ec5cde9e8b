"""Where secrets come from, who may read the files, and that they do not show."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr import redaction
from bt_ibkr.errors import UsageError
from bt_ibkr.redaction import FILTER, MASK, guard, redact, remember
from bt_ibkr.session.secrets import (
    Secret,
    read_dh_parameters,
    read_private_key,
    read_rsa_key,
    read_secret,
    write_secret,
)
from tests.auth.conftest import POSIX, write_private

if TYPE_CHECKING:
    from tests.auth.conftest import Keys


def test_secret_is_read_and_stripped(tmp_path: Path) -> None:
    path = write_private(tmp_path / "token", "  abc-123\n")
    assert read_secret(str(path), "The token").reveal() == "abc-123"


@POSIX
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o644, 0o777, 0o601])
def test_others_may_not_read_it(tmp_path: Path, mode: int) -> None:
    path = write_private(tmp_path / "token", "hidden-value", mode)
    with pytest.raises(UsageError) as caught:
        read_secret(str(path), "The token")
    assert f"chmod 600 {path}" in caught.value.remedy
    assert "hidden-value" not in str(caught.value)


@POSIX
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_its_owner_may(tmp_path: Path, mode: int) -> None:
    assert read_secret(str(write_private(tmp_path / "token", "value", mode)), "The token")


@POSIX
def test_link_to_an_open_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write_private(tmp_path / "token", "value", 0o644))
    with pytest.raises(UsageError, match="refused"):
        read_secret(str(tmp_path / "link"), "The token")


def test_files_that_hold_none(tmp_path: Path) -> None:
    for path, match in (
        (tmp_path / "missing", "no such file"),
        (tmp_path, "no ordinary file"),
        (write_private(tmp_path / "empty", " \n"), "is empty"),
        (write_private(tmp_path / "large", "x" * 200_000), "too large"),
    ):
        with pytest.raises(UsageError, match=match):
            read_secret(str(path), "The token")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    binary.chmod(0o600)
    with pytest.raises(UsageError, match="not text"):
        read_secret(str(binary), "The token")


def test_keys(keys: Keys, tmp_path: Path) -> None:
    assert read_rsa_key(str(keys.signature.private), "The key").key_size == 2048
    assert read_private_key(str(keys.curve.private), "The key")
    with pytest.raises(UsageError, match="not an RSA key"):
        read_rsa_key(str(keys.curve.private), "The key")
    public = write_private(tmp_path / "public.pem", keys.signature.public.read_text())
    with pytest.raises(UsageError, match="not a private key"):
        read_private_key(str(public), "The key")
    with pytest.raises(UsageError, match="DH PARAMETERS"):
        read_dh_parameters(str(public))


def test_key_with_a_passphrase(keys: Keys, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = read_rsa_key(str(keys.signature.private), "The key")
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open"),
    )
    path = write_private(tmp_path / "locked.pem", pem.decode())
    with pytest.raises(UsageError, match="passphrase"):
        read_private_key(str(path), "The key")


@POSIX
def test_written_secret_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write_secret(path, "granted")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_secret(str(path), "The token").reveal() == "granted"
    with pytest.raises(UsageError):
        write_secret(path, "again")


def test_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    class KeyringError(Exception):
        pass

    def get_password(service: str, name: str) -> str | None:
        if service == "locked":
            raise KeyringError("hidden words")
        return {"ibkr/token": "from-the-ring"}.get(f"{service}/{name}")

    ring = types.ModuleType("keyring")
    ring.get_password = get_password  # type: ignore[attr-defined]
    ring_errors = types.ModuleType("keyring.errors")
    ring_errors.KeyringError = KeyringError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", ring)
    monkeypatch.setitem(sys.modules, "keyring.errors", ring_errors)
    assert read_secret("keyring:ibkr/token", "The token").reveal() == "from-the-ring"
    for place, match in (
        ("keyring:ibkr/other", "has no entry"),
        ("keyring:locked/token", "refuses"),
        ("keyring:ibkr", "names no entry"),
        ("keyring:/x", "names no entry"),
    ):
        with pytest.raises(UsageError, match=match):
            read_secret(place, "The token")


def test_keyring_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(UsageError, match="not installed"):
        read_secret("keyring:ibkr/token", "The token")


@settings(deadline=None)
@given(st.text(min_size=6, max_size=40).filter(lambda text: len(text.strip()) == len(text)))
def test_secret_does_not_show(value: str) -> None:
    # Every value that is known makes the next one dearer.
    redaction._known.clear()
    secret = Secret("~" + value)
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", repr([secret])):
        assert "~" + value not in shown
    assert secret == Secret("~" + value)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)


@pytest.mark.parametrize(
    "text",
    [
        'Authorization: OAuth oauth_signature="HIDDENHIDDEN%3D", oauth_token="HIDDENHIDDEN"',
        "{'Authorization': 'Bearer HIDDENHIDDEN'}",
        "wss://api.ibkr.com/v1/api/ws?oauth_token=HIDDENHIDDEN",
        "wss://api.ibkr.com/v1/api/ws?x=1&bearer_token=HIDDENHIDDEN&y=2",
        "wss://api.ibkr.com/v1/api/ws?sessionToken=HIDDENHIDDEN",
        '{"access_token":"HIDDENHIDDEN","token_type":"Bearer"}',
        '{"oauth_token_secret": "HIDDENHIDDEN"}',
        "client_assertion=HIDDENHIDDEN&grant_type=x",
        "Cookie: api=HIDDENHIDDEN; other=HIDDENHIDDEN",
        "{'Cookie': 'api=HIDDENHIDDEN'}",
        "token eyJhbGciOiJSUzI1NiJ9.HIDDENHIDDEN.HIDDENHIDDEN!",
        "-----BEGIN RSA PRIVATE KEY-----\nHIDDENHIDDEN\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nHIDDENHIDDEN",
        'b\'{\\"access_token\\":\\"HIDDENHIDDEN\\"}\'',
    ],
)
def test_shapes_are_recognized(text: str) -> None:
    clean = redact(text)
    assert "HIDDEN" not in clean
    assert MASK in clean


def test_ordinary_words_stay() -> None:
    for text in (
        "bearer of bad news",
        "session-open cause=asked to",
        "order 123 filled at 10.5",
        "tokens: 3 left",
    ):
        assert redact(text).split()[0] == text.split()[0]
    assert redact("order 123 filled at 10.5") == "order 123 filled at 10.5"


def test_very_short_values_are_not_masked() -> None:
    remember("", "a", "USD")
    assert redact("a USD") == "a USD"


def test_filter_on_every_part_of_a_record(caplog: pytest.LogCaptureFixture) -> None:
    remember("xyzzy-plugh-42")
    log = logging.getLogger("bt_ibkr.session.of_this_test")
    guard()
    guard()
    assert log.filters.count(FILTER) == 1
    with caplog.at_level(logging.DEBUG, logger="bt_ibkr"):
        log.info("as argument %s %r", "xyzzy-plugh-42", {"k": "xyzzy-plugh-42"})
        log.info("in the text xyzzy-plugh-42")
        log.info("with a stack", stack_info=True)
        try:
            raise ValueError("xyzzy-plugh-42")
        except ValueError:
            log.exception("in an exception")
        log.info("kept %s", "plain")
    assert "xyzzy-plugh-42" not in caplog.text
    assert caplog.text.count(MASK) >= 4
    assert "ValueError" in caplog.text
    assert "kept plain" in caplog.text
    assert caplog.records[-1].args == ("plain",)


@settings(deadline=None)
@given(st.text(min_size=6, max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_known_value_never_survives(value: str, before: str, after: str) -> None:
    redaction._known.clear()
    remember(value)
    if value in MASK or value in before + after:
        return
    assert value not in redact(f"{before}|{value}|{after}") or MASK in value
