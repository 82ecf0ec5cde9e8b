"""The commands of ``bt-ibkr`` and their options: each gives back what is to be done, nothing is done here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, get_args

import typer

from bt_ibkr.cli import account, ticks
from bt_ibkr.cli.contracts import contracts
from bt_ibkr.cli.emulating import emulator
from bt_ibkr.cli.history import history
from bt_ibkr.cli.hub import hub
from bt_ibkr.cli.options import text_option
from bt_ibkr.cli.scan import scan
from bt_ibkr.errors import UsageError
from bt_ibkr.version import __version__

#: What typer raises for arguments that it cannot take; whether click stands beside typer or inside it.
ArgumentError: type[typer.BadParameter] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)

app = typer.Typer(
    name="bt-ibkr",
    help="Trade with backtrader over the Interactive Brokers Web API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_MODES = ("backtest", "sim", "paper", "live")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bt-ibkr {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log more to standard error.")
    ] = 0,
) -> None:
    level = (logging.ERROR, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    # Who is waited for must be told so, however quiet the rest.
    logging.getLogger("bt_ibkr.session.auth.gateway").setLevel(min(level, logging.WARNING))


@app.command()
def run(
    strategy: Annotated[
        str,
        typer.Argument(help="sma_cross, bracket_breakout, pairs; or module:Class; or path/file.py:Class."),
    ],
    mode: Annotated[str, text_option(help="backtest, sim, paper or live.")] = "sim",
    data: Annotated[list[str] | None, text_option(help="Instrument to follow; may be repeated.")] = None,
    market: Annotated[
        list[str] | None,
        text_option(help="Tick file or recording PATH[:SYMBOL]; may be repeated. Without: a synthetic day."),
    ] = None,
    history_dir: Annotated[
        str, text_option("--history", metavar="DIR", help="Archive of bars to read (mode backtest).")
    ] = "",
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Strategy parameter name=value; may be repeated.")
    ] = None,
    bar: Annotated[str, text_option(help="Bar length: tick, 5s, 1min, 1h …")] = "1min",
    cash: Annotated[float, typer.Option(help="Cash at the start, USD.")] = 100_000.0,
    start: Annotated[str, text_option("--from", help="Market time to start at, ISO 8601, UTC.")] = "",
    end: Annotated[str, text_option("--to", help="Market time to end at.")] = "",
    speed: Annotated[str, text_option(help="Of the emulator: lockstep, max, or a factor.")] = "lockstep",
    fill: Annotated[str, text_option(help="Fill model of the emulator: quote or last.")] = "quote",
    seed: Annotated[int, typer.Option(help="Of the synthetic market.")] = 0,
    day: Annotated[str, text_option(help="Of the synthetic market, YYYY-MM-DD.")] = "",
    commission: Annotated[str, text_option(help="fixed, tiered or none.")] = "fixed",
    universe: Annotated[str, text_option(help="Table of further instruments (CSV or Parquet).")] = "",
    gateway: Annotated[
        str,
        text_option(
            help="REST base, ending in /v1/api: of an emulator that runs already (mode sim), of the gateway."
        ),
    ] = "",
    ca_file: Annotated[str, text_option(help="PEM file with the certificate of --gateway.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Take any certificate of --gateway.")] = False,
    login: Annotated[str, text_option(help="TOML file that says how to log on (modes paper, live).")] = "",
    account: Annotated[str, text_option(help="Account to trade in (modes paper, live).")] = "",
    yes_live: Annotated[
        str,
        text_option(metavar="ACCOUNT", help="Confirm, in a script, that this account trades real money."),
    ] = "",
    competing: Annotated[
        str,
        text_option(
            help="When another login of the user has the session: take_over_once (default), yield or ask "
            "(modes paper, live)."
        ),
    ] = "",
    region: Annotated[
        str,
        text_option(help="Whose midnight resets the session: america (default), europe, asia (paper, live)."),
    ] = "",
    lines: Annotated[
        int | None,
        typer.Option("--lines", min=1, help="Market-data lines of the user, 100 by default (paper, live)."),
    ] = None,
    lines_overflow: Annotated[
        str, text_option(help="Feeds beyond the lines: refuse (default) or snapshots (paper, live).")
    ] = "",
    clear_lines: Annotated[
        str,
        text_option(
            help="Give back lines of all the user's programs: auto (default), always, never (paper, live)."
        ),
    ] = "",
    risk: Annotated[
        str,
        text_option(metavar="FILE", help="TOML file of limits that no order may go beyond (paper, live)."),
    ] = "",
    journal: Annotated[
        str,
        text_option(metavar="FILE", help="Journal of orders (paper, live); else the account's own."),
    ] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="Let no order leave (paper, live).")] = False,
    on_resume: Annotated[
        str,
        text_option(help="Open orders of earlier runs: default, keep or cancel (paper, live)."),
    ] = "",
    record: Annotated[
        str, text_option(metavar="DIR", help="Record the ticks of the run into this folder (not backtest).")
    ] = "",
    name: Annotated[
        str,
        text_option(help="The strategy's name in the journal (paper, live); else made from its class."),
    ] = "",
    hub_endpoint: Annotated[
        str,
        text_option(
            "--hub",
            metavar="ENDPOINT",
            help="Trade through a hub that owns the session (paper, live); or default.",
        ),
    ] = "",
    hub_keys: Annotated[
        str, text_option("--hub-keys", metavar="FILE", help="The strategy's key file, for an encrypted hub.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> Callable[[], int]:
    """Run a strategy: over stored bars, against the emulator, or on an account."""
    from bt_ibkr.app.login_file import read_login
    from bt_ibkr.app.market import parse_moment
    from bt_ibkr.app.run import RunRequest
    from bt_ibkr.cli.running import run_command
    from bt_ibkr.config import Competing, Trust
    from bt_ibkr.login import GatewayLogin
    from bt_ibkr.risk import RiskLimits, read_limits

    if mode not in _MODES:
        raise UsageError(f"--mode {mode!r} is no mode.", remedy=f"Modes: {', '.join(_MODES)}.")
    if mode not in ("paper", "live") and (account or yes_live or login or competing or region):
        raise UsageError(
            f"--account, --login, --yes-live, --competing and --region mean nothing in --mode {mode}.",
            remedy="Leave them out, or say --mode paper or --mode live.",
        )
    if mode not in ("paper", "live") and (risk or journal or read_only or on_resume or name):
        raise UsageError(
            f"--risk, --journal, --read-only, --on-resume and --name mean nothing in --mode {mode}.",
            remedy="Leave them out, or say --mode paper or --mode live.",
        )
    if mode not in ("paper", "live") and (lines or lines_overflow or clear_lines):
        raise UsageError(
            f"--lines, --lines-overflow and --clear-lines mean nothing in --mode {mode}.",
            remedy="Leave them out, or say --mode paper or --mode live.",
        )
    if mode not in ("paper", "live") and (hub_endpoint or hub_keys):
        raise UsageError(
            f"--hub and --hub-keys mean nothing in --mode {mode}.",
            remedy="Say --mode paper or --mode live, as the hub's account is.",
        )
    if hub_keys and not hub_endpoint:
        raise UsageError("--hub-keys was given without --hub.", remedy="Name the hub: --hub ENDPOINT.")
    if record and mode == "backtest":
        raise UsageError(
            "--record means nothing in --mode backtest.", remedy="Leave it out: no ticks stream there."
        )
    if history_dir and mode != "backtest":
        raise UsageError(
            f"--history means nothing in --mode {mode}.", remedy="Leave it out, or say --mode backtest."
        )
    policies = get_args(Competing)
    if competing and competing not in policies:
        raise UsageError(
            f"--competing {competing!r} is no policy.", remedy=f"Policies: {', '.join(policies)}."
        )
    # What is not given has the default of the request.
    supervision = {"competing": competing, "region": region, "on_resume": on_resume}
    budget = {"market_data_lines": lines, "lines_overflow": lines_overflow, "clear_lines": clear_lines}
    request = RunRequest(
        strategy=strategy,
        assignments=tuple(assign or ()),
        data=tuple(data or ()),
        market=tuple(market or ()),
        history=history_dir,
        bar=bar,
        cash=cash,
        start_ns=parse_moment(start) if start else 0,
        end_ns=parse_moment(end) if end else 0,
        speed=speed,
        fill=fill,
        seed=seed,
        day=day,
        commission=commission,
        universe=universe,
        gateway=gateway,
        trust=Trust(ca_file=ca_file or None, insecure=insecure),
        account=account,
        confirm_account=yes_live,
        login=read_login(login) if login else GatewayLogin(),
        risk=read_limits(risk) if risk else RiskLimits(),
        journal=journal,
        read_only=read_only,
        record=record,
        name=name,
        hub=hub_endpoint,
        hub_keys=hub_keys,
        **{field: value for field, value in (supervision | budget).items() if value},  # type: ignore[arg-type]
    )
    return partial(run_command, request, mode, as_json=as_json)


@app.command()
def doctor(
    gateway: Annotated[str, text_option(help="REST base, ending in /v1/api.")] = "",
    ca_file: Annotated[str, text_option(help="PEM file with the certificate of --gateway.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Take any certificate of --gateway.")] = False,
    login: Annotated[str, text_option(help="TOML file that says how to log on.")] = "",
    data: Annotated[str, text_option(help="Instrument whose market data is looked at.")] = "AAPL",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> Callable[[], int]:
    """Look whether everything is in order for a run; exit code 0 only if it is."""
    from bt_ibkr.cli.examining import doctor_command
    from bt_ibkr.config import Trust

    trust = Trust(ca_file=ca_file or None, insecure=insecure)
    return partial(doctor_command, gateway, trust, login, data, as_json=as_json)


app.command()(emulator)
app.add_typer(history)
app.add_typer(hub)
app.add_typer(contracts)
app.command()(scan)
for command in (*ticks.COMMANDS, *account.COMMANDS):
    app.command()(command)
