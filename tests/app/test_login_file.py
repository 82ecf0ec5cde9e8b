"""``--login FILE``: strict, without a secret in it, and not writable by others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bt_ibkr.app.doctor import run_doctor
from bt_ibkr.app.login_file import default_base, read_login, secret_places
from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import UsageError
from bt_ibkr.login import GatewayLogin, NoLogin, OAuth1Login, OAuth2Login, TokenLogin
from bt_ibkr.session.secrets import read_secret

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


#: What somebody may write where the place of a secret belongs.
INLINE = {
    "jwt": "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodW50ZXIyIn0.c2lnbmF0dXJl",
    "pem": "-----BEGIN PRIVATE KEY-----\\nMIIhunter2\\n-----END PRIVATE KEY-----",
    "hex": "a1b2c3d4e5f6a7b8c9d0",
    "base64": "hunter2+abc/def/ghi+jkl/mno/pqr+stu/vwx+yz0123456789ABCDEF==",
    "long": "hunter2" * 300,
    "zero": "hunter2\\u0000",
}


@pytest.mark.parametrize("kind", INLINE)
@pytest.mark.parametrize("provider", ["token", "oauth1a", "oauth2"])
def test_a_secret_in_the_place_of_its_place_is_not_repeated(tmp_path: Path, provider: str, kind: str) -> None:
    """Neither by reading the file, nor by the log-on, nor by doctor; in no error, no text of one, no row."""
    fields = {
        "token": "token",
        "oauth1a": 'consumer_key = "C"\naccess_token_secret = "s"\nsignature_key = "k"\nencryption_key = "e"\n'
        'dh_parameters = "d"\naccess_token',
        "oauth2": 'client_id = "c"\nkey_id = "k"\ncredential = "u"\nprivate_key',
    }[provider]
    text = f'provider = "{provider}"\n{fields} = "{INLINE[kind]}"'
    told = ""
    try:
        login = read_login(write(tmp_path, text))
    except UsageError as problem:
        told = f"{problem} {problem!r}"
    else:
        found = run_doctor(
            SessionSettings(base_url="http://127.0.0.1:9/v1/api", login=login), folder=tmp_path
        )
        told = str(found)
        assert "not repeated" in told
        with pytest.raises(UsageError) as caught:
            read_secret(getattr(login, fields.split("\n")[-1].split(" = ")[-1]), "The secret")
        told += str(caught.value)
    assert "never the secret itself" in told or "not the place of one" in told
    for piece in ("hunter2", "eyJ", "MII", "a1b2c3d4", "ghi+jkl"):
        assert piece not in told


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("http://idp.example.com/token", False),
        ("https://user:hunter2@idp.example.com/token", False),
        ("ftp://idp.example.com/token", False),
        ("https://", False),
        ("http://127.0.0.1.example.com/token", False),
        ("https://idp.example.com/token", True),
        ("http://127.0.0.1:8080/token", True),
    ],
)
@pytest.mark.parametrize("name", ["token_url", "sso_url"])
def test_a_credential_is_asked_for_over_tls(tmp_path: Path, name: str, url: str, fine: bool) -> None:
    text = (
        'provider = "oauth2"\nclient_id = "c"\nkey_id = "k"\nprivate_key = "p"\ncredential = "u"\n'
        f'{name} = "{url}"'
    )
    if fine:
        assert getattr(read_login(write(tmp_path, text)), name) == url
        return
    with pytest.raises(UsageError, match=f"{name} is no https URL") as caught:
        read_login(write(tmp_path, text))
    assert "hunter2" not in str(caught.value)
    assert caught.value.remedy


POSIX = pytest.mark.skipif(os.name != "posix", reason="files of POSIX")


@POSIX
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for place in (str(pipe), "/dev/zero", str(tmp_path)):
        with pytest.raises(UsageError, match="cannot be read") as caught:
            read_login(place)
        assert caught.value.remedy
        with pytest.raises(UsageError, match="no ordinary file"):
            read_secret(place, "The token")
    (tmp_path / "long.toml").write_text("#" * 200_000, encoding="utf-8")
    with pytest.raises(UsageError, match="longer than"):
        read_login(str(tmp_path / "long.toml"))


@POSIX
def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """He could change it after it was looked at, and have the credential sent to himself."""
    path = write(tmp_path, OAUTH1)
    assert read_login(path)
    owner = Path(path).stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        # root may write everywhere in any case: give the file away.
        os.chown(path, 12345, -1)
    with pytest.raises(UsageError, match="belongs to another user") as caught:
        read_login(path)
    assert caught.value.remedy
