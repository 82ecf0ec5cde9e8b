"""``--login FILE``: strict, without a secret in it, and not writable by others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bt_ibkr.app.login_file import default_base, read_login, secret_places
from bt_ibkr.errors import UsageError
from bt_ibkr.login import GatewayLogin, NoLogin, OAuth1Login, OAuth2Login, TokenLogin

OAUTH1 = """
provider = "oauth1a"
consumer_key = "ABCDEFGHI"
access_token = "access_token"
access_token_secret = "keyring:ibkr/secret"
signature_key = "/keys/signature.pem"
encryption_key = "encryption.pem"
dh_parameters = "dhparam.pem"
"""


def write(folder: Path, text: str, mode: int = 0o644) -> str:
    path = folder / "login.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


def test_places_begin_at_the_file(tmp_path: Path) -> None:
    login = read_login(write(tmp_path, OAUTH1))
    assert login == OAuth1Login(
        consumer_key="ABCDEFGHI",
        access_token=str(tmp_path / "access_token"),
        access_token_secret="keyring:ibkr/secret",
        signature_key="/keys/signature.pem",
        encryption_key=str(tmp_path / "encryption.pem"),
        dh_parameters=str(tmp_path / "dhparam.pem"),
    )
    assert [name for name, _ in secret_places(login)] == [
        "access_token", "access_token_secret", "signature_key", "encryption_key",
    ]  # fmt: skip
    assert default_base(login) == "https://api.ibkr.com/v1/api"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('provider = "gateway"\nwait_s = 5.0', GatewayLogin),
        ('provider = "token"\ntoken = "t"', TokenLogin),
        ('provider = "none"', NoLogin),
        (
            'provider = "oauth2"\nclient_id = "c"\nkey_id = "k"\nprivate_key = "p"\ncredential = "u"',
            OAuth2Login,
        ),
    ],
)
def test_every_provider(tmp_path: Path, text: str, kind: type) -> None:
    assert type(read_login(write(tmp_path, text))) is kind


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("provider = ", "not TOML"),
        ("wait_s = 1.0", "provider"),
        ('provider = "telepathy"', "telepathy"),
        ('provider = "token"', "token"),
        ('provider = "token"\ntoken = "t"\npassword = "hunter2"', "password"),
        ('provider = "gateway"\nwait_s = "5"', "wait_s"),
        ('provider = "gateway"\nwait_s = -5.0', "wait_s"),
        ('provider = "token"\ntoken = " "', "token is empty"),
    ],
)
def test_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_login(write(tmp_path, text))
    assert says in caught.value.message
    assert "hunter2" not in str(caught.value)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_login(str(tmp_path / "absent.toml"))


@pytest.mark.skipif(os.name != "posix", reason="permissions of files are those of POSIX")
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_others_must_not_be_able_to_change_it(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UsageError, match="may change the file") as caught:
        read_login(write(tmp_path, OAUTH1, mode))
    assert "chmod go-w" in caught.value.remedy
