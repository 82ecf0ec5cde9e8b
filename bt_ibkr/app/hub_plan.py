"""Strategies that are run and watched together: ``strategies.toml``.

::

    [hub]
    endpoint = "ipc:///run/bt-ibkr/hub"

    [logs]
    folder = "logs"

    [defaults]                    # of every strategy below
    mode = "paper"

    [strategies.alpha]
    strategy = "sma_cross"        # as bt-ibkr run takes it
    data = ["AAPL"]
    set = { fast = 5, slow = 20 }

    [strategies.beta]
    command = ["python", "beta.py"]
    restart = "always"
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from bt_ibkr.app.restarting import Restart, RestartPolicy
from bt_ibkr.errors import NotArmedError, UsageError
from bt_ibkr.hub.config import beside, convert_table, default_endpoint, take_table
from bt_ibkr.hub.names import check_name

_REMEDY: Final = "docs/hub.md shows what it may say."
#: Options that a table has words of its own for, and what nobody writes into a file.
_OWN: Final = (
    "--hub",
    "--name",
    "--mode",
    "--account",
    "--hub-keys",
    "--yes-live",
    "--data",
    "--set",
    "--bar",
)


class HubTable(msgspec.Struct, frozen=True, kw_only=True):
    """Table ``hub``."""

    endpoint: str = ""


class LogsTable(msgspec.Struct, frozen=True, kw_only=True):
    """Table ``logs``.

    Attributes:
        folder: Where ``NAME.log`` is written; relative to the file's folder.
        most_bytes: About as long one log becomes.
        keep: So many older ones stay.
    """

    folder: str = "logs"
    most_bytes: int = 10_000_000
    keep: int = 5


class StrategyTable(msgspec.Struct, frozen=True, kw_only=True):
    """Table ``strategies.NAME``, and ``defaults``.

    Attributes:
        strategy: As ``bt-ibkr run`` takes it; or
        command: Program and arguments; it finds endpoint and name in ``BT_IBKR_HUB`` and ``BT_IBKR_NAME``.
        mode, account, data, bar: As the options of ``run``; of ``strategy`` alone.
        set: Parameters of the strategy.
        hub_keys: Its key file.
        options: Further options of ``run``.
        folder: Working directory; by default the file's.
        environment: Variables beside those of this process.
        restart, backoff_s, backoff_longest_s, most_restarts, stable_s: See ``RestartPolicy``.
        stop_s: How long its end is waited for, before it is killed.
    """

    strategy: str = ""
    command: tuple[str, ...] = ()
    mode: Literal["paper", "live"] = "paper"
    account: str = ""
    data: tuple[str, ...] = ()
    bar: str = ""
    set: dict[str, str | int | float | bool] = {}
    hub_keys: str = ""
    options: tuple[str, ...] = ()
    folder: str = ""
    environment: dict[str, str] = {}
    restart: Restart = Restart.ON_FAILURE
    backoff_s: float = 1.0
    backoff_longest_s: float = 60.0
    most_restarts: int = 10
    stable_s: float = 60.0
    stop_s: float = 15.0


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One process.

    Attributes:
        ours: It is a command of this product, with its exit codes.
        environment: What it has beside the environment of this process.
    """

    name: str
    command: tuple[str, ...]
    ours: bool
    folder: Path
    environment: dict[str, str]
    policy: RestartPolicy
    stop_s: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, in the order in which they are started."""

    endpoint: str
    logs: Path
    most_bytes: int
    keep: int
    strategies: tuple[Planned, ...]


def read_plan(path: str, *, endpoint: str = "", confirmed: tuple[str, ...] = ()) -> Plan:
    """The plan in a file.

    Args:
        endpoint: Of the hub; goes before the file's.
        confirmed: Accounts of real money that may be traded in.

    Raises:
        UsageError: It cannot be read, or says something that means nothing; names table and value.
        NotArmedError: A strategy of mode ``live`` whose account was not confirmed.
    """
    try:
        tables = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as problem:
        raise UsageError(
            f"The strategies {path} cannot be read: {problem.strerror}.", remedy=_REMEDY
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"The strategies {path} are not TOML: {problem}.", remedy=_REMEDY) from None
    folder = Path(path).resolve().parent
    hub = HubTable(**convert_table(HubTable, take_table(tables, "hub", path), f"{path}, [hub]"))
    logs = LogsTable(**convert_table(LogsTable, take_table(tables, "logs", path), f"{path}, [logs]"))
    if logs.most_bytes < 1000 or logs.keep < 0:
        raise UsageError(
            f"{path}, [logs]: most_bytes = {logs.most_bytes}, keep = {logs.keep} cannot be.",
            remedy="Give at least 1000 bytes, and 0 or more files to keep.",
        )
    where = f"{path}, [defaults]"
    defaults = convert_table(StrategyTable, take_table(tables, "defaults", path), where)
    if single := sorted(defaults.keys() & {"strategy", "command"}):
        raise UsageError(
            f"{where}: {single[0]} is for one strategy alone.", remedy="Write it into its own table."
        )
    chosen = endpoint or hub.endpoint or default_endpoint()
    beside(chosen)
    planned = []
    for name, table in take_table(tables, "strategies", path).items():
        where = f"{path}, [strategies.{name}]"
        if not isinstance(table, dict):
            raise UsageError(f"{where}: {table!r} is no table.", remedy=_REMEDY)
        values = defaults | convert_table(StrategyTable, table, where)
        planned.append(_planned(check_name(name), StrategyTable(**values), where, folder, chosen, confirmed))
    if tables:
        raise UsageError(
            f"{path}: there is no table [{next(iter(tables))}].",
            remedy="Tables: hub, logs, defaults, strategies.NAME.",
        )
    if not planned:
        raise UsageError(f"{path} names no strategy.", remedy="Write a table [strategies.NAME] for each.")
    return Plan(
        endpoint=chosen,
        logs=folder / logs.folder,
        most_bytes=logs.most_bytes,
        keep=logs.keep,
        strategies=tuple(planned),
    )


def _planned(
    name: str, table: StrategyTable, where: str, folder: Path, endpoint: str, confirmed: tuple[str, ...]
) -> Planned:
    if bool(table.strategy) is bool(table.command):
        raise UsageError(
            f"{where}: it has {'both' if table.command else 'neither'} strategy and command."
            if table.command
            else f"{where}: it has neither strategy nor command.",
            remedy="Name one of them.",
        )
    if not 0 < table.stop_s < 3600:
        raise UsageError(f"{where}: stop_s = {table.stop_s!r} is no time.", remedy="Give seconds above 0.")
    try:
        policy = RestartPolicy(
            restart=table.restart,
            backoff_s=table.backoff_s,
            backoff_longest_s=table.backoff_longest_s,
            most_restarts=table.most_restarts,
            stable_s=table.stable_s,
        )
    except UsageError as problem:
        raise UsageError(f"{where}: {problem.message}", remedy=problem.remedy) from None
    ours = bool(table.strategy)
    environment = table.environment | {"BT_IBKR_HUB": endpoint, "BT_IBKR_NAME": name}
    if table.hub_keys:
        environment["BT_IBKR_HUB_KEYS"] = str(folder / table.hub_keys)
    return Planned(
        name=name,
        command=_command(name, table, where, folder, endpoint, confirmed) if ours else table.command,
        ours=ours,
        folder=folder / table.folder,
        environment=environment,
        policy=policy,
        stop_s=table.stop_s,
    )


def _command(
    name: str, table: StrategyTable, where: str, folder: Path, endpoint: str, confirmed: tuple[str, ...]
) -> tuple[str, ...]:
    for option in table.options:
        if option.split("=")[0] in _OWN:
            raise UsageError(
                f"{where}: {option!r} has no place in options.",
                remedy="The table has words of its own; --yes-live is given to bt-ibkr hub run.",
            )
    words: list[Any] = [sys.executable, "-m", "bt_ibkr.cli.main", "run", table.strategy]
    words += ["--hub", endpoint, "--name", name, "--mode", table.mode]
    for data in table.data:
        words += ["--data", data]
    for parameter, value in table.set.items():
        words += ["--set", f"{parameter}={str(value).lower() if isinstance(value, bool) else value}"]
    if table.bar:
        words += ["--bar", table.bar]
    if table.account:
        words += ["--account", table.account]
    if table.hub_keys:
        words += ["--hub-keys", str(folder / table.hub_keys)]
    if table.mode == "live":
        if not table.account or table.account not in confirmed:
            raise NotArmedError(
                f"{where}: mode live trades real money in {table.account or 'an account that it does not name'}, "
                "and nobody confirmed it.",
                remedy="Write account = … there, and give --yes-live ACCOUNT to bt-ibkr hub run.",
            )
        words += ["--yes-live", table.account]
    return (*words, *table.options)
