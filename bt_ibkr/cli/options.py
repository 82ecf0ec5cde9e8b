"""What the options of all commands have in common."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_type_hints

import typer

from bt_ibkr.errors import UsageError

if TYPE_CHECKING:
    from bt_ibkr.app.visit import Address

#: Reads what it was given, and gives back what is to be done.
_Command = Callable[..., Callable[[], int]]


def text_option(*names: str, **settings: Any) -> Any:
    """An option that takes text, and refuses an empty one: that is a variable of a script that was never set, and
    must not pass for an option that was left out."""
    return typer.Option(*names, callback=_refuse_empty, **settings)


def _refuse_empty(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    source = context.get_parameter_source(parameter.name or "")
    texts = value if isinstance(value, list) else [value]
    if source is not None and source.name == "COMMANDLINE" and any(not str(text).strip() for text in texts):
        raise UsageError(
            f"{parameter.opts[0]} is empty.", remedy="Give it a value, or leave the option out altogether."
        )
    return value


Gateway = Annotated[str, text_option("--gateway", help="REST base, ending in /v1/api.")]
CaFile = Annotated[str, text_option("--ca-file", help="PEM file with the certificate of --gateway.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Take any certificate of --gateway.")]
LoginFile = Annotated[str, text_option("--login", help="TOML file that says how to log on.")]
Account = Annotated[
    str, text_option("--account", metavar="ID", help="Account; else the login's selected one.")
]
Mode = Annotated[str, text_option("--mode", help="paper or live: the kind that the account must be of.")]
YesLive = Annotated[
    str,
    text_option(
        "--yes-live",
        metavar="ACCOUNT",
        help="Confirm, in a script, that this account trades real money.",
    ),
]
CompetingOption = Annotated[
    str,
    text_option(
        "--competing", help="When another login of the user has the session: yield, take_over_once or ask."
    ),
]
JournalFile = Annotated[
    str, text_option("--journal", metavar="FILE", help="Journal of orders; else the account's own.")
]
Wait = Annotated[float, typer.Option("--wait", min=0.0, help="Seconds to wait for orders to end.")]
Reason = Annotated[str, text_option("--reason", help="Why, for the journal and whoever looks at it.")]
External = Annotated[
    bool, typer.Option("--external", help="Also orders that other programs, or people, placed.")
]
#: What says which account is visited.
_VISIT: Final[dict[str, Any]] = {
    "gateway": Gateway,
    "ca_file": CaFile,
    "insecure": Insecure,
    "login": LoginFile,
    "account": Account,
    "mode": Mode,
    "competing": CompetingOption,
}
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def visits(
    *, live: bool = False, mode: bool = True, account: Any = Account, competing: str = ""
) -> Callable[[_Command], _Command]:
    """A command that visits an account: it gets the options that say which, and takes them as ``address``.

    Args:
        live: It acts there: in an account with real money only if that is confirmed by ``--yes-live``.
        mode: It may be held to a kind of account.
        account: Its option for the account, where that means something else.
        competing: What it does by default when another login of the user has the session.
    """
    taken = _VISIT | {"account": account}
    unless: dict[str, Any] = {"insecure": False, "competing": competing}
    if not mode:
        del taken["mode"]
    if live:
        taken["yes_live"] = YesLive

    def decorate(command: _Command) -> _Command:
        own = inspect.signature(command)
        hints = get_type_hints(command, localns={"Address": object}, include_extras=True)
        options = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=unless.get(name, ""), annotation=kind
            )
            for name, kind in taken.items()
        ]
        shown: list[inspect.Parameter] = []
        for name, parameter in own.parameters.items():
            if name == "address":
                shown += options
            else:
                shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))

        @functools.wraps(command)
        def visiting(**given: Any) -> Callable[[], int]:
            address = address_of(**{name: given.pop(name) for name in taken})
            return command(address=address, **given)

        # What the command line is made from.
        visiting.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
        visiting.__annotations__ = {one.name: one.annotation for one in shown} | {"return": hints["return"]}
        return visiting

    return decorate


def address_of(
    *,
    gateway: str,
    ca_file: str,
    insecure: bool,
    login: str,
    account: str,
    mode: str = "",
    yes_live: str = "",
    competing: str = "",
) -> Address:
    """The account that the options name.

    Raises:
        UsageError: One of them is wrong.
    """
    from bt_ibkr.app.login_file import read_login
    from bt_ibkr.app.visit import Address
    from bt_ibkr.config import Competing, Trust
    from bt_ibkr.login import GatewayLogin

    if mode not in ("", "paper", "live"):
        raise UsageError(f"--mode {mode!r} is no mode of an account.", remedy="Modes: paper, live.")
    policies = get_args(Competing)
    if competing and competing not in policies:
        raise UsageError(
            f"--competing {competing!r} is no policy.", remedy=f"Policies: {', '.join(policies)}."
        )
    return Address(
        gateway=gateway,
        trust=Trust(ca_file=ca_file or None, insecure=insecure),
        login=read_login(login) if login else GatewayLogin(),
        account=account,
        mode=mode,  # type: ignore[arg-type]
        confirm_account=yes_live,
        competing=competing or "yield",  # type: ignore[arg-type]
    )
