"""``bt-ibkr``: arguments in, people's text or JSON out, exit codes as in ``docs/cli.md``."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bt_ibkr.cli.output import fail
from bt_ibkr.errors import BtIbkrError, UsageError
from bt_ibkr.version import __version__

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


@app.command()
def run(
    strategy: Annotated[
        str,
        typer.Argument(help="sma_cross, bracket_breakout, pairs; or module:Class; or path/file.py:Class."),
    ],
    mode: Annotated[str, typer.Option(help="backtest, sim, paper or live.")] = "sim",
    data: Annotated[list[str] | None, typer.Option(help="Instrument to follow; may be repeated.")] = None,
    market: Annotated[
        list[str] | None,
        typer.Option(help="Tick file FILE[:SYMBOL]; may be repeated. Without: a synthetic day."),
    ] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Strategy parameter name=value; may be repeated.")
    ] = None,
    bar: Annotated[str, typer.Option(help="Bar length: tick, 5s, 1min, 1h …")] = "1min",
    cash: Annotated[float, typer.Option(help="Cash at the start, USD.")] = 100_000.0,
    start: Annotated[str, typer.Option("--from", help="Market time to start at, ISO 8601, UTC.")] = "",
    end: Annotated[str, typer.Option("--to", help="Market time to end at.")] = "",
    speed: Annotated[str, typer.Option(help="Of the emulator: lockstep, max, or a factor.")] = "lockstep",
    fill: Annotated[str, typer.Option(help="Fill model of the emulator: quote or last.")] = "quote",
    seed: Annotated[int, typer.Option(help="Of the synthetic market.")] = 0,
    day: Annotated[str, typer.Option(help="Of the synthetic market, YYYY-MM-DD.")] = "",
    commission: Annotated[str, typer.Option(help="fixed, tiered or none.")] = "fixed",
    universe: Annotated[str, typer.Option(help="Table of further instruments (CSV or Parquet).")] = "",
    gateway: Annotated[
        str,
        typer.Option(
            help="REST base, ending in /v1/api: of an emulator that runs already (mode sim), of the gateway."
        ),
    ] = "",
    ca_file: Annotated[str, typer.Option(help="PEM file with the certificate of --gateway.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Take any certificate of --gateway.")] = False,
    login: Annotated[str, typer.Option(help="TOML file that says how to log on (modes paper, live).")] = "",
    account: Annotated[str, typer.Option(help="Account to trade in (modes paper, live).")] = "",
    yes_live: Annotated[
        str,
        typer.Option(metavar="ACCOUNT", help="Confirm, in a script, that this account trades real money."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Run a strategy: over stored bars, against the emulator, or on an account."""
    from bt_ibkr.app.login_file import read_login
    from bt_ibkr.app.market import parse_moment
    from bt_ibkr.app.run import RunRequest
    from bt_ibkr.cli.running import run_command
    from bt_ibkr.config import Trust
    from bt_ibkr.login import GatewayLogin

    if mode not in _MODES:
        raise UsageError(f"--mode {mode!r} is no mode.", remedy=f"Modes: {', '.join(_MODES)}.")
    if mode not in ("paper", "live") and (account or yes_live or login):
        raise UsageError(
            f"--account, --login and --yes-live mean nothing in --mode {mode}.",
            remedy="Leave them out, or say --mode paper or --mode live.",
        )
    request = RunRequest(
        strategy=strategy,
        assignments=tuple(assign or ()),
        data=tuple(data or ()),
        market=tuple(market or ()),
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
    )
    raise typer.Exit(run_command(request, mode, as_json=as_json))


@app.command()
def doctor(
    gateway: Annotated[str, typer.Option(help="REST base, ending in /v1/api.")] = "",
    ca_file: Annotated[str, typer.Option(help="PEM file with the certificate of --gateway.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Take any certificate of --gateway.")] = False,
    login: Annotated[str, typer.Option(help="TOML file that says how to log on.")] = "",
    data: Annotated[str, typer.Option(help="Instrument whose market data is looked at.")] = "AAPL",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Look whether everything is in order for a run; exit code 0 only if it is."""
    from bt_ibkr.cli.examining import doctor_command
    from bt_ibkr.config import Trust

    trust = Trust(ca_file=ca_file or None, insecure=insecure)
    raise typer.Exit(doctor_command(gateway, trust, login, data, as_json=as_json))


@app.command()
def emulator(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 5000,
    market: Annotated[
        list[str] | None,
        typer.Option(help="Tick file FILE[:SYMBOL]; may be repeated. Without: a synthetic day."),
    ] = None,
    speed: Annotated[str, typer.Option(help="Market seconds per second, max, or lockstep.")] = "1",
    fill: Annotated[str, typer.Option(help="Fill model: quote or last.")] = "quote",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    tls: Annotated[
        bool, typer.Option("--tls", help="Serve https and wss with a certificate made at the start.")
    ] = False,
    pacing: Annotated[
        str, typer.Option(help="strict, off, or auto (strict unless max or lockstep).")
    ] = "auto",
    conflation_ms: Annotated[int, typer.Option(help="Market ms between two frames of one instrument.")] = 500,
    account: Annotated[list[str] | None, typer.Option(help="Account id; may be repeated.")] = None,
    cash: Annotated[float, typer.Option(help="Cash of each account.")] = 1_000_000.0,
    commission: Annotated[str, typer.Option(help="fixed, tiered or none.")] = "fixed",
    questions: Annotated[str, typer.Option(help="Order questions: default, none or all.")] = "default",
    symbol: Annotated[
        list[str] | None,
        typer.Option(help="Symbol of the synthetic market; may be repeated. Without: a handful."),
    ] = None,
    day: Annotated[str, typer.Option(help="Day of the synthetic market, YYYY-MM-DD.")] = "",
    universe: Annotated[str, typer.Option(help="Table of further instruments (CSV or Parquet).")] = "",
    autostart: Annotated[
        bool, typer.Option(help="Whether the market moves at once, or waits for control.")
    ] = True,
) -> None:
    """Serve the IBKR Web API with a market behind it; prints one line of JSON when it accepts connections."""
    import msgspec

    from bt_ibkr.emulator.main import run as serve
    from bt_ibkr.emulator.settings import EmulatorSettings

    given: dict[str, Any] = {
        "host": host, "port": port, "market": market or [], "speed": _speed(speed), "fill": fill, "seed": seed,
        "tls": tls, "pacing": pacing, "conflation_ms": conflation_ms, "cash": cash, "commission": commission,
        "questions": questions, "synthetic_day": day,
        "universe": universe, "autostart": autostart,
    }  # fmt: skip
    if account:
        given["accounts"] = account
    if symbol:
        given["synthetic_instruments"] = symbol
    try:
        settings = msgspec.convert(given, EmulatorSettings)
    except msgspec.ValidationError as problem:
        raise UsageError(f"bt-ibkr emulator: {problem}.", remedy="See bt-ibkr emulator --help.") from None
    raise typer.Exit(serve(settings))


def _speed(text: str) -> float | str:
    if text in ("max", "lockstep"):
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--speed {text!r} is no speed.", remedy="Give a number above 0, max or lockstep."
        ) from None


def main() -> None:
    """Entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character shows a question mark; the run goes on.
            stream.reconfigure(errors="replace")
    if sys.stdout is None:
        # Closed by whoever started this.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the process's end
    try:
        app()
    except BtIbkrError as problem:
        sys.exit(fail(problem, as_json="--json" in sys.argv))
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE):
            raise
        told = UsageError(f"The output cannot be written: {problem.strerror}.", remedy="Write it elsewhere.")
        code = fail(told, as_json=False)
        # What is still buffered would fail once more, in words of the interpreter.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(code)


if __name__ == "__main__":
    main()
