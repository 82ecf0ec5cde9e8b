"""strategies.toml and hub.toml: what they may say, and what is said of them where they say something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from bt_ibkr.app.hub_file import read_hub_file
from bt_ibkr.app.hub_plan import read_plan
from bt_ibkr.app.restarting import Restart
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.login import GatewayLogin


def write(tmp_path: Path, text: str, name: str = "strategies.toml") -> str:
    file = tmp_path / name
    file.write_text(text)
    file.chmod(0o600)
    return str(file)


PLAN = """
[hub]
endpoint = "ipc:///tmp/hub"
[defaults]
restart = "always"
bar = "5s"
[strategies.alpha]
strategy = "sma_cross"
data = ["AAPL", "MSFT"]
set = { fast = 2, slow = 5, quiet = true }
hub_keys = "alpha.key"
options = ["--to", "2026-03-02T15:00"]
[strategies.beta]
command = ["python", "beta.py"]
restart = "never"
environment = { LEVEL = "3" }
"""


def test_commands_and_policies(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, PLAN))
    alpha, beta = plan.strategies
    words = " ".join(alpha.command[1:])
    key = tmp_path.resolve() / "alpha.key"
    assert words == (
        "-m bt_ibkr.cli.main run sma_cross --hub ipc:///tmp/hub --name alpha --mode paper --data AAPL --data MSFT "
        f"--set fast=2 --set slow=5 --set quiet=true --bar 5s --hub-keys {key} --to 2026-03-02T15:00"
    )
    assert (alpha.policy.restart, beta.policy.restart) == (Restart.ALWAYS, Restart.NEVER)
    assert (alpha.ours, beta.ours) == (True, False)
    assert beta.command == ("python", "beta.py")
    assert beta.environment == {"LEVEL": "3", "BT_IBKR_HUB": "ipc:///tmp/hub", "BT_IBKR_NAME": "beta"}
    assert plan.logs == tmp_path.resolve() / "logs"
    assert read_plan(write(tmp_path, PLAN), endpoint="ipc:///b").strategies[0].command[6] == "ipc:///b"


def test_real_money_is_confirmed_where_it_is_started(tmp_path: Path) -> None:
    text = '[hub]\nendpoint = "ipc:///a"\n[strategies.alpha]\nstrategy = "pairs"\nmode = "live"\n'
    for account, confirmed in (("", ("U1",)), ('account = "U1"', ()), ('account = "U1"', ("U2",))):
        with pytest.raises(BtIbkrError, match="nobody confirmed it"):
            read_plan(write(tmp_path, text + account), confirmed=confirmed)
    plan = read_plan(write(tmp_path, text + 'account = "U1"'), confirmed=("U1",))
    assert plan.strategies[0].command[-2:] == ("--yes-live", "U1")


ONE = '[strategies.alpha]\nstrategy = "sma_cross"\n'
WRONG_PLANS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nothing": ("", ("names no strategy",)),
    "no TOML": ("[", ("not TOML",)),
    "neither": ("[strategies.alpha]\n", ("[strategies.alpha]", "neither")),
    "both": (ONE + 'command = ["a"]', ("[strategies.alpha]", "both")),
    "an unknown word": (ONE + "dta = 3", ("[strategies.alpha]", "'dta'", "Did you mean 'data'?")),
    "another type": (ONE + 'data = "AAPL"', ("[strategies.alpha]", "data = 'AAPL'")),
    "no policy": (ONE + 'restart = "sometimes"', ("[strategies.alpha]", "restart", "sometimes")),
    "no time": (ONE + "backoff_s = 0", ("[strategies.alpha]", "backoff_s")),
    "no end": (ONE + "stop_s = 0", ("[strategies.alpha]", "stop_s")),
    "a confirmation": (ONE + 'options = ["--yes-live=U1"]', ("[strategies.alpha]", "--yes-live")),
    "another hub": (ONE + 'options = ["--hub", "x"]', ("[strategies.alpha]", "'--hub'")),
    "an unknown table": (ONE + "[log]", ("[log]", "logs")),
    "a strategy for all": (ONE + '[defaults]\nstrategy = "pairs"', ("[defaults]", "strategy")),
    "no logs": (ONE + "[logs]\nmost_bytes = 3", ("[logs]", "most_bytes = 3")),
    "no endpoint": (ONE + '[hub]\nendpoint = "here"', ("'here'",)),
    "a name that is none": ('[strategies."a b"]\nstrategy = "pairs"', ("'a b'",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_PLANS)
def test_plans_that_are_none(tmp_path: Path, case: str) -> None:
    text, says = WRONG_PLANS[case]
    with pytest.raises(BtIbkrError) as refused:
        read_plan(write(tmp_path, text))
    told = str(refused.value)
    assert not [word for word in says if word not in told], told
    assert refused.value.exit_code == 2
    assert refused.value.remedy


def test_a_hubs_file_has_login_and_limits(tmp_path: Path) -> None:
    write(tmp_path, "max_order_size = 7\n", "limits.toml")
    text = '[session]\nmode = "live"\nrisk = "limits.toml"\n[login]\nprovider = "gateway"\nwait_s = 5\n'
    file = read_hub_file(write(tmp_path, text, "hub.toml"), endpoint="ipc:///a")
    assert isinstance(file.login, GatewayLogin)
    assert file.login.wait_s == 5
    assert file.risk.max_order_size == 7
    assert file.session.mode == "live"
    own = read_hub_file(
        write(tmp_path, "[risk]\nmax_order_notional = 0.1\n", "hub.toml"), endpoint="ipc:///a"
    )
    assert str(own.risk.max_order_notional) == "0.1"


WRONG_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a confirmation": ('[session]\nconfirm = "U1"', ("[session]", "'confirm'")),
    "login twice": ('[session]\nlogin = "a.toml"\n[login]\nprovider = "none"', ("[login]", "[session]")),
    "risk twice": ('[session]\nrisk = "a.toml"\n[risk]\nread_only = true', ("[risk]", "[session]")),
    "no limit": ("[risk]\nmax_size = 3", ("[risk]", "max_size")),
    "no provider": ('[login]\nprovider = "guess"', ("[login]", "guess")),
    "an unknown table": ("[strategy]", ("[strategy]", "strategies.NAME")),
    "no table": ("session = 3", ("session = 3",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_FILES)
def test_hubs_files_that_are_none(tmp_path: Path, case: str) -> None:
    text, says = WRONG_FILES[case]
    with pytest.raises(BtIbkrError) as refused:
        read_hub_file(write(tmp_path, text, "hub.toml"), endpoint="ipc:///a")
    told = str(refused.value)
    assert not [word for word in says if word not in told], told


def test_a_hubs_file_that_others_may_change(tmp_path: Path) -> None:
    path = write(tmp_path, "", "hub.toml")
    Path(path).chmod(0o666)
    with pytest.raises(BtIbkrError, match="others than its owner may change"):
        read_hub_file(path, endpoint="ipc:///a")
