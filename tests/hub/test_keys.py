"""Key files: made once, readable by their owner alone, told of without their secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bt_ibkr.errors import UsageError
from bt_ibkr.hub.joining import HubAddress
from bt_ibkr.hub.keys import KeyPair, make_keys, read_keys, read_strategy_keys, write_keys

posix = pytest.mark.skipif(os.name != "posix", reason="needs permissions of files")


def test_written_and_read(tmp_path: Path) -> None:
    hub = make_keys()
    alpha = make_keys(hub.public)
    for name, keys in (("hub", hub), ("alpha", alpha)):
        write_keys(tmp_path / name, keys)
        assert read_keys(tmp_path / name) == keys
        assert keys.secret not in repr(keys)
    assert read_strategy_keys(tmp_path / "alpha").server == hub.public


@posix
def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "alpha.key"
    write_keys(file, make_keys())
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        read_keys(file)


def test_an_existing_one_is_left(tmp_path: Path) -> None:
    file = tmp_path / "alpha.key"
    keys = make_keys()
    write_keys(file, keys)
    with pytest.raises(UsageError, match="exists already"):
        write_keys(file, make_keys())
    assert read_keys(file) == keys


def test_a_hubs_own_is_none_of_a_strategy(tmp_path: Path) -> None:
    write_keys(tmp_path / "hub.key", make_keys())
    address = HubAddress(endpoint="tcp://10.0.0.1:5560", name="alpha", keys=tmp_path / "hub.key")
    with pytest.raises(UsageError, match="does not say which hub"):
        address.connect(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no public key"),
        ("[", "no key file"),
        ('public = "{p}"', "no secret key"),
        ('public = "{p}"\nsecret = "tooshort"', "secret key in the file"),
        ('public = "{p}"\nsecret = "~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"', "secret key in the file"),
        ('public = "{p}"\nsecret = "{other}"', "do not belong together"),
        ('public = "{p}"\nsecret = 3', "no secret key"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    keys, other = make_keys(), make_keys()
    file = tmp_path / "alpha.key"
    file.write_text(text.replace("{p}", _quoted(keys)).replace("{other}", _quoted_secret(other)))
    file.chmod(0o600)
    with pytest.raises(UsageError) as refused:
        read_keys(file)
    assert says in str(refused.value)
    assert other.secret not in str(refused.value)


def _quoted(keys: KeyPair) -> str:
    return keys.public.replace("\\", "\\\\").replace('"', '\\"')


def _quoted_secret(keys: KeyPair) -> str:
    return keys.secret.replace("\\", "\\\\").replace('"', '\\"')
