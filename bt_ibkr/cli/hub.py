"""The command ``hub`` and those below it: their options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, get_args

import typer

from bt_ibkr.cli.options import (
    CaFile,
    Gateway,
    Insecure,
    Json,
    LoginFile,
    Mode,
    text_option,
)
from bt_ibkr.errors import UsageError

hub = typer.Typer(
    name="hub",
    help="One session for many strategy processes: own it, look at it, run strategies on it.",
    invoke_without_command=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Endpoint = Annotated[
    str,
    typer.Argument(
        metavar="[ENDPOINT]", help="ipc:///path or tcp://host:port; else the one in the state directory."
    ),
]
HubKeys = Annotated[
    str, text_option("--hub-keys", metavar="FILE", help="Key file of a strategy or administrator.")
]


@hub.callback()
def serve(
    context: typer.Context,
    config: Annotated[str, text_option(metavar="FILE", help="hub.toml.")] = "",
    endpoint: Annotated[
        str, text_option(help="Where strategies connect: ipc:///path or tcp://host:port.")
    ] = "",
    key_file: Annotated[
        str, text_option("--key-file", metavar="FILE", help="The hub's keys: the channel is encrypted.")
    ] = "",
    plain_tcp: Annotated[
        bool, typer.Option("--plain-tcp", help="Listen without encryption where other machines reach it.")
    ] = False,
    health: Annotated[
        str, text_option(metavar="HOST:PORT", help="Where /livez and /readyz answer over HTTP.")
    ] = "",
    mode: Mode = "",
    account: Annotated[
        list[str] | None,
        text_option(
            "--account", metavar="ID", help="Account to trade in; may be repeated. Else the selected one."
        ),
    ] = None,
    yes_live: Annotated[
        list[str] | None,
        text_option(
            "--yes-live",
            metavar="ACCOUNT",
            help="Confirm, in a script, that this account trades real money; may be repeated.",
        ),
    ] = None,
    gateway: Gateway = "",
    ca_file: CaFile = "",
    insecure: Insecure = False,
    login: LoginFile = "",
    competing: Annotated[
        str,
        text_option(
            help="When another login of the user has the session: take_over_once (default), yield or ask."
        ),
    ] = "",
    region: Annotated[
        str, text_option(help="Whose midnight resets the session: america (default), europe, asia.")
    ] = "",
    risk: Annotated[
        str, text_option(metavar="FILE", help="TOML file of limits that no order may go beyond.")
    ] = "",
    journal: Annotated[
        str, text_option(metavar="FILE", help="Journal of orders; else the account's own.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON on standard output once it is ready.")
    ] = False,
) -> Callable[[], int] | None:
    """Own the session and serve it to strategies, until Ctrl-C or SIGTERM."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return None
    from bt_ibkr.app.hub import HubRequest
    from bt_ibkr.app.hub_file import read_hub_file
    from bt_ibkr.app.login_file import read_login
    from bt_ibkr.cli.hub_serving import hub_command
    from bt_ibkr.config import Competing, SessionSettings, Trust
    from bt_ibkr.risk import read_limits

    file = read_hub_file(
        config,
        endpoint=endpoint or None,
        key_file=key_file or None,
        plain_tcp=plain_tcp or None,
        health=health or None,
        accounts=tuple(account) if account else None,
    )
    said = file.session
    mode, competing = mode or said.mode or "paper", competing or said.competing
    if mode not in ("paper", "live"):
        raise UsageError(f"Mode {mode!r} is no mode of a hub.", remedy="Modes: paper, live.")
    policies = get_args(Competing)
    if competing and competing not in policies:
        raise UsageError(f"competing {competing!r} is no policy.", remedy=f"Policies: {', '.join(policies)}.")
    defaults = SessionSettings()
    request = HubRequest(
        settings=file.settings,
        mode=mode,  # type: ignore[arg-type]
        confirmed=tuple(yes_live or ()),
        gateway=gateway or said.gateway,
        trust=Trust(ca_file=ca_file or said.ca_file or None, insecure=insecure or said.insecure),
        login=read_login(login) if login else file.login,
        competing=competing or defaults.competing,  # type: ignore[arg-type]
        region=region or said.region or defaults.region,
        risk=read_limits(risk) if risk else file.risk,
        journal=journal or said.journal,
        market_data_lines=said.market_data_lines,
        lines_overflow=said.lines_overflow,
        clear_lines=said.clear_lines,
    )
    return partial(hub_command, request, as_json=as_json)


def _refuse_options(context: typer.Context) -> None:
    """An option between ``hub`` and the name of a command would have no effect."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--json" if name == "as_json" else "--" + name.replace("_", "-")
            raise UsageError(
                f"{option} before {context.invoked_subcommand!r} means nothing.",
                remedy=f"Write it after: bt-ibkr hub {context.invoked_subcommand} … {option}",
            )


@hub.command()
def status(
    endpoint: Endpoint = "",
    hub_keys: HubKeys = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every second, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> Callable[[], int]:
    """Show a hub's session, strategies, streams, books, and what it has refused."""
    from bt_ibkr.cli.hub_looking import status_command

    return partial(status_command, endpoint, hub_keys, watch=watch, as_json=as_json)


@hub.command()
def transfer(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Book that has it; unallocated is one.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Book that gets it.")],
    size: Annotated[str, typer.Argument(help="How many units, of a short position as well; or all.")],
    instrument: Annotated[
        str, typer.Argument(metavar="INSTRUMENT", help="Symbol, as hub status shows it, or conid.")
    ],
    endpoint: Endpoint = "",
    hub_keys: HubKeys = "",
    account: Annotated[
        str, text_option("--account", metavar="ID", help="Account; needed where the hub has several.")
    ] = "",
    price: Annotated[
        float | None, typer.Option(min=0.0, help="At which it changes hands; else what FROM has paid.")
    ] = None,
    as_json: Json = False,
) -> Callable[[], int]:
    """Move a position from one strategy's book to another's; nothing is traded."""
    from bt_ibkr.cli.hub_looking import TransferWishes, transfer_command

    wishes = TransferWishes(
        source=source, target=target, size=size, instrument=instrument, account=account, price=price
    )
    return partial(transfer_command, endpoint, hub_keys, wishes, as_json=as_json)


@hub.command()
def keys(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Strategy to make keys for; without: show what there is.")
    ] = "",
    of_hub: Annotated[bool, typer.Option("--hub", help="Make the hub's own keys.")] = False,
    server: Annotated[
        str, text_option(metavar="KEY", help="The hub's public key; else that of hub.key in the folder.")
    ] = "",
    folder: Annotated[
        str,
        text_option("--dir", metavar="DIR", help="Folder of key files; else keys in the state directory."),
    ] = "",
    as_json: Json = False,
) -> Callable[[], int]:
    """Make key files, and show the public keys and what to enter where."""
    from bt_ibkr.cli.hub_keys import keys_command

    if of_hub and (name or server):
        raise UsageError(
            "--hub goes with neither NAME nor --server.", remedy="Make one pair of keys at a time."
        )
    if server and not name:
        raise UsageError("--server was given without NAME.", remedy="Name the strategy to make keys for.")
    return partial(keys_command, name, folder, of_hub=of_hub, server=server, as_json=as_json)


@hub.command()
def run(
    file: Annotated[str, typer.Argument(metavar="STRATEGIES.TOML", help="Strategies to run and watch.")],
    endpoint: Annotated[
        str, text_option("--hub", metavar="ENDPOINT", help="The hub; else the one that the file names.")
    ] = "",
    yes_live: Annotated[
        list[str] | None,
        text_option(
            "--yes-live",
            metavar="ACCOUNT",
            help="Confirm, in a script, that this account trades real money; may be repeated.",
        ),
    ] = None,
    as_json: Json = False,
) -> Callable[[], int]:
    """Start strategies as processes of their own at a hub, and watch them, until Ctrl-C or SIGTERM."""
    from bt_ibkr.app.hub_plan import read_plan
    from bt_ibkr.cli.hub_running import run_command

    plan = read_plan(file, endpoint=endpoint, confirmed=tuple(yes_live or ()))
    return partial(run_command, plan, as_json=as_json)
