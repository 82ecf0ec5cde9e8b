"""hub.toml: what it may say, and what is said of it where it says something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.errors import UsageError
from bt_ibkr.hub.access import EVERYTHING, OnVanish
from bt_ibkr.hub.arming import Arming
from bt_ibkr.hub.config import HubSettings, default_endpoint, read_settings
from bt_ibkr.hub.keys import make_keys, write_keys

ROOM = Path("/nowhere")


def read(text: str, folder: Path = ROOM, **given: Any) -> HubSettings:
    return read_settings(text, source="hub.toml", folder=folder, **given)[0]


def test_all_words() -> None:
    settings, rest = read_settings(
        '[hub]\nendpoint = "tcp://127.0.0.1:5560"\naccounts = ["U1"]\nbeat_s = 2\ndead_s = 7.5\n'
        'health = "127.0.0.1:0"\n'
        '[strategies.alpha]\ninstruments = ["FUT:ES"]\ncash = 1000\non_vanish = "flatten"\ntrading = false\n'
        "[risk]\nmax_order_size = 5\n",
        source="hub.toml",
        folder=ROOM,
    )
    assert (settings.endpoint, settings.ticks_endpoint) == ("tcp://127.0.0.1:5560", "tcp://127.0.0.1:5561")
    assert (settings.accounts, settings.beat_s, settings.dead_s) == (("U1",), 2.0, 7.5)
    alpha = settings.strategies["alpha"]
    assert (alpha.instruments, alpha.cash, alpha.on_vanish) == (("FUT:ES",), 1000.0, OnVanish.FLATTEN)
    assert not alpha.trading
    assert rest == {"risk": {"max_order_size": 5}}


def test_without_a_word_it_listens_in_the_state_directory(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("BT_IBKR_HOME", str(tmp_path))
    settings = read("")
    assert settings.endpoint == default_endpoint()
    assert str(tmp_path) in settings.endpoint or settings.endpoint.startswith("tcp://127.0.0.1")
    assert settings.unlisted_grant is EVERYTHING


def test_what_is_given_goes_first() -> None:
    settings = read('[hub]\nendpoint = "ipc:///a"\nqueue = 5\n', endpoint="ipc:///b", health=None)
    assert (settings.endpoint, settings.queue, settings.health) == ("ipc:///b", 5, "")


WRONG: dict[str, tuple[str, tuple[str, ...]]] = {
    "no TOML": ("[hub", ("hub.toml", "not TOML")),
    "an unknown word": ('[hub]\nendpoit = "ipc:///a"', ("[hub]", "'endpoit'", "Did you mean 'endpoint'?")),
    "another type": ('[hub]\nring = "many"', ("[hub]", "ring = 'many'", "int")),
    "no table": ("hub = 3", ("hub = 3", "no table")),
    "no endpoint": ('[hub]\nendpoint = "udp://a:1"', ("udp://a:1", "ipc:///absolute/path")),
    "a relative path": ('[hub]\nendpoint = "ipc://hub"', ("ipc://hub", "no endpoint")),
    "a path too long": (f'[hub]\nendpoint = "ipc:///{"a" * 120}"', ("longer",)),
    "tcp for everybody": ('[hub]\nendpoint = "tcp://0.0.0.0:5560"', ("0.0.0.0:5560", "plain_tcp = true")),
    "beats too slow": ("[hub]\nbeat_s = 4", ("4 s", "5 s", "twice")),
    "no time": ("[hub]\nstale_s = -1", ("stale_s", "-1", "above 0")),
    "infinite": ("[hub]\ndead_s = inf", ("dead_s", "inf")),
    "no ring": ("[hub]\nring = 0", ("ring = 0", "1 or more")),
    "no health address": ('[hub]\nhealth = "8080"', ("'8080'", "host:port")),
    "a secret": ('[hub]\nsecret_key = "very-secret"', ("[hub]", "key_file")),
    "an unknown word of a strategy": ("[strategies.alpha]\ncsh = 3", ("[strategies.alpha]", "'csh'", "cash")),
    "a strategy that is none": ("[strategies]\nalpha = 3", ("[strategies.alpha]", "3", "no table")),
    "a name that is none": ("[strategies.alpha-2]", ("'alpha-2'", "no name")),
    "no policy": ('[strategies.alpha]\non_vanish = "panic"', ("[strategies.alpha]", "on_vanish", "panic")),
    "no silence": ("[strategies.alpha]\nvanish_s = -3", ("[strategies.alpha]", "vanish_s", "-3")),
    "no cash": ("[strategies.alpha]\ncash = nan", ("[strategies.alpha]", "cash", "nan")),
    "a key without the hub's": (f'[strategies.alpha]\nkey = "{"a" * 40}"', ("[strategies.alpha]", "hub has none")),
    "a key file that is not there": ('[hub]\nkey_file = "hub.key"', ("/nowhere/hub.key", "bt-ibkr hub keys")),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_told_with_table_and_value(case: str) -> None:
    text, says = WRONG[case]
    with pytest.raises(UsageError) as refused:
        read(text)
    told = str(refused.value)
    assert not [word for word in says if word not in told], told
    assert "very-secret" not in told
    assert refused.value.remedy or case == "a path too long"


def test_keys(tmp_path: Path) -> None:
    hub, one, other = make_keys(), make_keys(), make_keys()
    write_keys(tmp_path / "hub.key", hub)
    head = '[hub]\nendpoint = "tcp://0.0.0.0:5560"\nkey_file = "hub.key"\n'
    settings = read(f'{head}[strategies.alpha]\nkey = "{one.public}"', tmp_path)
    assert settings.public_keys() == {one.public}
    assert settings.unlisted_grant is None
    assert hub.secret not in repr(settings)
    for text, says in (
        ("[strategies.alpha]", "has no key"),
        ('[strategies.alpha]\nkey = "short"', "[strategies.alpha]: key is no key"),
        (
            f'[strategies.alpha]\nkey = "{other.public}"\n[strategies.beta]\nkey = "{other.public}"',
            "[strategies.beta] has the key of [strategies.alpha]",
        ),
    ):
        with pytest.raises(UsageError) as refused:
            read(head + text, tmp_path)
        assert says in str(refused.value)


def test_a_confirmation_of_no_account_of_the_hub() -> None:
    with pytest.raises(UsageError, match="U2 was confirmed, but it is not one of the hub's: U1"):
        Arming("live", accounts=("U1",), confirmed=("U2",))
