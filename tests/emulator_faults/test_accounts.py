"""Paper and live, several accounts, an adviser's."""

from __future__ import annotations

from typing import Any

import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.errors import UsageError


@pytest.mark.parametrize(
    ("changes", "paper"),
    [
        ({"accounts": ("DU1234567",)}, True),
        ({"accounts": ("U1234567",)}, False),
        ({"accounts": ("U1234567", "U7654321")}, False),
        ({"accounts": ("DF1234567", "DU1234567"), "fa_master": "DF1234567"}, True),
        ({"accounts": ("F1234567", "U1234567"), "fa_master": "F1234567"}, False),
        ({"accounts": ("DU1234567",), "paper": "no"}, False),
        ({"accounts": ("U1234567",), "paper": "yes"}, True),
    ],
)
async def test_paper_or_live(make: Any, changes: dict[str, Any], paper: bool) -> None:
    api = await make(**changes)
    assert (await api.get("/iserver/accounts"))["isPaper"] is paper
    assert (await api.get("/sso/validate"))["LOGIN_TYPE"] == (2 if paper else 1)
    rows = await api.get("/portfolio/accounts")
    assert {row["type"] for row in rows} == {"DEMO" if paper else "INDIVIDUAL"}
    socket = await api.socket(greeted=False)
    assert (await socket.next())["isPaper"] is paper
    assert (await socket.until("act"))["args"]["isPaper"] is paper


async def test_adviser(make: Any) -> None:
    ids = ("F1", "U1", "U2")
    api = await make(accounts=ids, fa_master="F1", fa_groups=("Growth", "Income"))
    body = await api.get("/iserver/accounts")
    assert body["accounts"] == list(ids)
    assert body["allowFeatures"]["allowFA"] is True
    assert body["groups"] == ["All", "Growth", "Income"]
    assert {one: body["acctProps"][one]["hasChildAccounts"] for one in ids} == {
        "F1": True,
        "U1": False,
        "U2": False,
    }
    assert body["aliases"]["All"] == "All"
    rows = {row["id"]: row for row in await api.get("/portfolio/subaccounts")}
    assert [rows[one]["faclient"] for one in ids] == [False, True, True]
    assert rows["U1"]["parent"]["accountId"] == "F1"
    assert rows["F1"]["parent"]["isMParent"] is False


async def test_nobody_advises(api: Any) -> None:
    body = await api.get("/iserver/accounts")
    assert (body["allowFeatures"]["allowFA"], body["groups"]) == (False, [])
    (row,) = await api.get("/portfolio/accounts")
    assert row["faclient"] is False


@pytest.mark.parametrize(
    "settings", [{"fa_master": "F1"}, {"fa_groups": ("Growth",)}, {"paper": "maybe"}, {"pacing_speed": 0}]
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    if settings.get("paper"):
        import msgspec

        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(settings, EmulatorSettings)
        return
    with pytest.raises(UsageError):
        EmulatorSettings(**settings)
