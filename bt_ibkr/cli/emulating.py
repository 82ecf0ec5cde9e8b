"""The command ``emulator``: every setting of the emulator as an option."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
import typer

from bt_ibkr.cli.options import text_option
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.settings import EmulatorSettings, QuestionLimits
from bt_ibkr.errors import UsageError

if TYPE_CHECKING:
    from bt_ibkr.emulator.server import EmulatorServer

_D: Final = EmulatorSettings()
_A: Final = AuthenticationSettings()
_Q: Final = QuestionLimits()
#: Options whose names are not those of their settings.
_NAMES: Final = {
    "accounts": "account", "fa_groups": "fa-group", "synthetic_instruments": "symbol", "synthetic_day": "day",
    "synthetic_days": "days", "synthetic_rate": "event-rate", "state_file": "state", "permissions": "permission",
}  # fmt: skip


def _panel(title: str) -> Callable[..., Any]:
    return partial(typer.Option, rich_help_panel=title)


_LISTEN, _MARKET, _ACCOUNTS, _SESSION, _AUTH, _LIMITS, _FRAMES, _ORDERS = map(
    _panel,
    (
        "Where it listens", "Market", "Accounts", "Session", "Authentication", "Request limits", "Frames", "Orders",
    ),
)  # fmt: skip


def emulator(
    host: Annotated[str, _LISTEN(help="Address to listen on.")] = _D.host,
    port: Annotated[int, _LISTEN(help="Port; 0 takes a free one.")] = _D.port,
    tls: Annotated[
        bool, _LISTEN("--tls", help="Serve https and wss with a certificate made at the start.")
    ] = False,
    parent_pid: Annotated[int, _LISTEN(help="End when this process is gone.")] = 0,
    state: Annotated[
        str, _LISTEN(help="File that keeps orders, accounts and session; goes on from it if it is there.")
    ] = "",
    market: Annotated[
        list[str] | None,
        text_option(
            help="Tick file or recording PATH[:SYMBOL]; may be repeated. Without: a synthetic day.",
            rich_help_panel="Market",
        ),
    ] = None,
    symbol: Annotated[
        list[str] | None,
        text_option(
            help="Symbol of the synthetic market; may be repeated. Without: a handful.",
            rich_help_panel="Market",
        ),
    ] = None,
    day: Annotated[str, _MARKET(help="Day of the synthetic market, YYYY-MM-DD.")] = "",
    days: Annotated[
        int, _MARKET(help="Trading days of the synthetic market, from that day on.")
    ] = _D.synthetic_days,
    event_rate: Annotated[
        float, _MARKET(help="Events of each instrument a second in the synthetic market.")
    ] = _D.synthetic_rate,
    history_days: Annotated[
        int, _MARKET(help="Trading days of history before the synthetic day.")
    ] = _D.history_days,
    universe: Annotated[str, _MARKET(help="Table of further instruments (CSV or Parquet).")] = "",
    seed: Annotated[int, _MARKET(help="Of everything random.")] = 0,
    speed: Annotated[str, _MARKET(help="Market seconds per second, max, or lockstep.")] = "1",
    autostart: Annotated[
        bool, _MARKET(help="Whether the market moves at once, or waits for control.")
    ] = True,
    run_on: Annotated[
        bool, _MARKET("--run-on", help="The market's clock goes on after the end of the tape.")
    ] = False,
    volume_factor: Annotated[
        int, _MARKET(help="History's volume of US stocks is shares divided by it.")
    ] = _D.volume_factor,
    account: Annotated[list[str] | None, _ACCOUNTS(help="Account id, D… on paper; may be repeated.")] = None,
    paper: Annotated[
        str, _ACCOUNTS(help="What is said of the accounts: yes, no, or auto (by their ids).")
    ] = _D.paper,
    fa_master: Annotated[str, _ACCOUNTS(help="The account that is an adviser's master.")] = "",
    fa_group: Annotated[
        list[str] | None,
        text_option(help="Group of the adviser; may be repeated.", rich_help_panel="Accounts"),
    ] = None,
    permission: Annotated[
        list[str] | None,
        text_option(
            help="Security type that may be traded, as STK; may be repeated. Without: all.",
            rich_help_panel="Accounts",
        ),
    ] = None,
    cash: Annotated[float, _ACCOUNTS(help="Cash of each account.")] = _D.cash,
    currency: Annotated[str, _ACCOUNTS(help="Of the cash.")] = _D.currency,
    margin: Annotated[str, _ACCOUNTS(help="reg_t refuses what an account cannot carry; off.")] = _D.margin,
    commission: Annotated[str, _ACCOUNTS(help="fixed, tiered or none.")] = _D.commission,
    username: Annotated[str, _ACCOUNTS(help="What session frames tell.")] = _D.username,
    login: Annotated[str, _SESSION(help="What a client finds: ready, no_bridge or logged_out.")] = _D.login,
    region: Annotated[
        str, _SESSION(help="Whose midnight and Saturday count: america, europe or asia.")
    ] = _D.region,
    nightly_reset: Annotated[
        bool, _SESSION("--nightly-reset", help="Break sessions at the region's midnight.")
    ] = False,
    after_reset: Annotated[
        str, _SESSION(help="What the reset leaves: ready, no_bridge or logged_out.")
    ] = _D.after_reset,
    maintenance: Annotated[str, _SESSION(help="Saturday's window, HH:MM-HH:MM of the region.")] = "",
    after_maintenance: Annotated[
        str, _SESSION(help="What it leaves: ready, no_bridge or logged_out.")
    ] = _D.after_maintenance,
    idle_s: Annotated[
        float, _SESSION(help="Seconds without a request after which the brokerage session ends; 0 never.")
    ] = _D.idle_s,
    auth: Annotated[
        str, _AUTH(help="What is asked of clients: gateway (nothing), oauth1a, oauth2 or token.")
    ] = _A.kind,
    auth_key_folder: Annotated[
        str, _AUTH(help="Where keys, tokens and the login file of a client are written.")
    ] = "",
    auth_lifetime_s: Annotated[float, _AUTH(help="Of tokens and SSO sessions.")] = _A.lifetime_s,
    auth_skew_s: Annotated[float, _AUTH(help="Furthest a timestamp may be from the clock.")] = _A.skew_s,
    auth_consumer_key: Annotated[str, _AUTH(help="OAuth 1.0a's consumer.")] = _A.consumer_key,
    auth_third_party: Annotated[
        bool, _AUTH("--auth-third-party", help="The consumer asks users for access.")
    ] = False,
    auth_signature_key: Annotated[str, _AUTH(help="Public RSA key of the consumer; else made.")] = "",
    auth_encryption_key: Annotated[str, _AUTH(help="Public RSA key of the consumer; else made.")] = "",
    auth_dh_parameters: Annotated[str, _AUTH(help="Diffie-Hellman parameters; else a known group.")] = "",
    auth_client_id: Annotated[str, _AUTH(help="OAuth 2.0's client.")] = _A.client_id,
    auth_key_id: Annotated[str, _AUTH(help="Of its key.")] = _A.key_id,
    auth_public_key: Annotated[str, _AUTH(help="Public key of the client; else made.")] = "",
    auth_algorithm: Annotated[str, _AUTH(help="RS256, PS256 or ES256.")] = _A.algorithm,
    auth_credential: Annotated[
        str, _AUTH(help="User whose sessions the client opens; else --username.")
    ] = "",
    auth_variant: Annotated[str, _AUTH(help="standard or institutional.")] = _A.variant,
    pacing: Annotated[str, _LIMITS(help="strict, off, or auto (strict unless max or lockstep).")] = _D.pacing,
    pacing_speed: Annotated[
        float, _LIMITS(help="Seconds on the clock of the limits per second.")
    ] = _D.pacing_speed,
    penalty_s: Annotated[
        float, _LIMITS(help="Seconds in the penalty box after a request too many.")
    ] = _D.penalty_s,
    conflation_ms: Annotated[
        int, _FRAMES(help="Market ms between two frames of one instrument; 0 sends every change.")
    ] = _D.conflation_ms,
    smd_lifetime_s: Annotated[
        float, _FRAMES(help="Market seconds after which a stream ends unless renewed; 0 never.")
    ] = _D.smd_lifetime_s,
    market_data_lines: Annotated[
        int, _LIMITS(help="Instruments a user has data of at one time; 0 for no limit.")
    ] = _D.market_data_lines,
    qualities: Annotated[
        list[str] | None,
        text_option(
            "--quality",
            metavar="[CONID:]CODE",
            help="Field 6509 of an instrument or of all: DPB, ZB, N …; may be repeated.",
            rich_help_panel="Market",
        ),
    ] = None,
    heartbeat_s: Annotated[float, _FRAMES(help="Between heartbeats of a WebSocket.")] = _D.heartbeat_s,
    connect_delay_s: Annotated[
        float, _FRAMES(help="From the upgrade of a WebSocket to its first frame.")
    ] = _D.connect_delay_s,
    frames: Annotated[str, _FRAMES(help="text or binary.")] = _D.frames,
    regular_hours: Annotated[
        bool,
        _ORDERS(
            "--regular-hours", help="Orders not marked for outside them match within regular hours only."
        ),
    ] = False,
    fill: Annotated[str, _ORDERS(help="Fill model: quote or last.")] = _D.fill,
    questions: Annotated[str, _ORDERS(help="Order questions: default, none or all.")] = _D.questions,
    limits_price_percent: Annotated[
        float, _ORDERS(help="Asks of limit prices further through the market.")
    ] = _Q.price_percent,
    limits_size: Annotated[float, _ORDERS(help="Asks of larger quantities; 0 never.")] = _Q.size,
    limits_value: Annotated[float, _ORDERS(help="Asks of larger values; 0 never.")] = _Q.value,
    order_status_delay_s: Annotated[
        float, _ORDERS(help="Before an unknown order's status is refused; negative as recorded.")
    ] = _D.order_status_delay_s,
) -> Callable[[], int]:
    """Serve the IBKR Web API with a market behind it; prints one line of JSON when it accepts connections."""
    given = dict(locals())
    settings = settings_of(given)
    if settings.authentication.kind != "gateway" and not settings.authentication.key_folder:
        raise UsageError(
            f"--auth {auth} was given without --auth-key-folder: nobody would have the keys.",
            remedy="Name an empty folder for them: --auth-key-folder FOLDER.",
        )
    return partial(_serve, settings)


def settings_of(given: Mapping[str, Any]) -> EmulatorSettings:
    """The settings that the options mean.

    Raises:
        UsageError: A value that cannot be.
    """
    values = {
        field: given[_NAMES.get(field, field).replace("-", "_")]
        for field in EmulatorSettings.__struct_fields__
        if field not in ("authentication", "limits")
    }
    for field in ("accounts", "fa_groups", "permissions", "synthetic_instruments", "market", "qualities"):
        # Left out, it is the setting's own default.
        values[field] = tuple(values[field] or getattr(_D, field))
    values["speed"] = _speed(values["speed"])
    _check_choices(EmulatorSettings, values, "--")
    asked = {
        field: given["auth" if field == "kind" else f"auth_{field}"]
        for field in AuthenticationSettings.__struct_fields__
    }
    _check_choices(AuthenticationSettings, asked, "--auth-")
    limits = {field: given[f"limits_{field}"] for field in QuestionLimits.__struct_fields__}
    return EmulatorSettings(
        **values, authentication=AuthenticationSettings(**asked), limits=QuestionLimits(**limits)
    )


def _check_choices(kind: type[msgspec.Struct], values: Mapping[str, Any], prefix: str) -> None:
    """Where a setting is one of several words."""
    for field, hint in get_type_hints(kind).items():
        if get_origin(hint) is Literal and field in values and values[field] not in get_args(hint):
            option = "--auth" if (prefix, field) == ("--auth-", "kind") else prefix + field.replace("_", "-")
            *words, last = get_args(hint)
            raise UsageError(
                f"{option} {values[field]!r} cannot be used.", remedy=f"Give {', '.join(words)} or {last}."
            )


def _speed(text: str) -> float | str:
    if text in ("max", "lockstep"):
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--speed {text!r} is no speed.", remedy="Give a number above 0, max or lockstep."
        ) from None


def _serve(settings: EmulatorSettings) -> int:
    from bt_ibkr.emulator.main import run

    return run(settings, _tell_login)


def _tell_login(server: EmulatorServer) -> None:
    """How a client logs on, for a person to copy; standard output has the one line of JSON alone."""
    path = server.door.login_file
    if path is None:
        return
    sys.stderr.write(
        f"Clients log on with {path}:\n\n{path.read_text(encoding='utf-8')}\n"
        f"bt-ibkr run sma_cross --mode paper --data AAPL --gateway {server.url} --login {path}\n"
    )
    sys.stderr.flush()
