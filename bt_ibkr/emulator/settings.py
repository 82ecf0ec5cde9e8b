"""Settings of the emulator: one frozen type, keyword only, unknown keys refused."""

from __future__ import annotations

import math
import re
from datetime import time
from typing import Literal

import msgspec

from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import SecurityType

#: Market seconds per wall second, or a mode that has no such factor.
Speed = float | Literal["max", "lockstep"]


class QuestionLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an order is answered with a question. The defaults are those of a new IBKR user.

    Attributes:
        price_percent: o163 if a limit price is further through the market than this.
        size: o383 if the quantity is above this; 0 never.
        value: o451 if the value in the contract's currency is above this; 0 never.
    """

    price_percent: float = 3.0
    size: float = 500.0
    value: float = 100_000.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UsageError(
                    f"Emulator setting limits: {name} {value!r} cannot be used.", remedy="Give 0 or more."
                )


class EmulatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the emulator is started with.

    Attributes:
        host, port: Where it listens; port 0 takes a free one.
        market: Tapes, each ``FILE[:SYMBOL]``; empty for a synthetic market.
        synthetic_day: Day of a synthetic market, ``YYYY-MM-DD``; empty for one in March 2026.
        synthetic_instruments: Symbols (or ``conid:NUMBER``) that trade in a synthetic market: of a product of futures
            the front month, or ``ESZ5``; what options, CFDs and the like are on in their place.
        synthetic_days: How many trading days a synthetic market has; week-ends and holidays are left out.
        synthetic_rate: Events of an instrument a second, on average.
        universe: Path of a table with further instruments; empty for the built-in ones.
        speed: Market seconds per wall second, ``max``, or ``lockstep`` (moves only on control steps).
        autostart: The market moves as soon as the server listens; else when control says ``start``.
        fill: What orders are matched against.
        seed: Of everything random.
        tls: Serve https and wss with a certificate made at the start.
        pacing: Whether request limits are enforced, on the wall clock; ``auto`` enforces them unless
            ``speed`` is ``max`` or ``lockstep``.
        penalty_s: Seconds in the penalty box after a request too many, on the clock of the limits.
        pacing_speed: Seconds on the clock of the limits per wall second: 60 makes 15 minutes a quarter minute.
        login: What a client finds: a brokerage session, only the outer session, or nobody logged in.
        authentication: What is asked of a client before it is heard. Where that is more than nothing, ``login``
            ``ready`` means the outer session only, as with IBKR: the client opens the brokerage session.
        connect_delay_s: Wall seconds between the WebSocket upgrade and the first frame; frames that
            come in between are lost, as at the real gateway.
        heartbeat_s: Wall seconds between heartbeats of a WebSocket.
        conflation_ms: Market milliseconds between two top-of-book frames of one instrument; 0 sends one
            frame for each change.
        frames: Kind of WebSocket frame the server sends.
        smd_lifetime_s: Market seconds after which a top-of-book stream ends unless renewed; 0 never.
        market_data_lines: So many instruments a user has data of at one time, streams and snapshots together: beyond
            them a stream is mute and a snapshot stays empty; 0 for no limit.
        qualities: Field 6509 of instruments, each ``CONID:CODE`` or, for all others, ``CODE``; else real time.
        order_status_delay_s: Wall seconds before an unknown order's status is refused; negative for 5 s as
            recorded, and none with ``max`` and ``lockstep``.
        volume_factor: Of US stocks: history's ``v`` is shares divided by it.
        questions: ``default`` asks by ``limits``; ``all`` adds market and stop order risk (o10151, o10152)
            and the cap price (o10153); ``none`` asks nothing.
        accounts: Account ids, ``DU…`` on paper or ``U…`` live.
        paper: What the server says of them; ``auto`` goes by the ids, which begin with D on paper.
        fa_master: The one of ``accounts`` that is an adviser's master (``F…`` or ``DF…``); empty for none.
        fa_groups: Names of the adviser's groups; all accounts but the master belong to each of them.
        permissions: Security types that may be traded, as ``STK``; empty for all.
        regular_hours: Orders not marked for outside regular hours match only within them.
        cash: Of each account at the start, in ``currency``.
        commission: Schedule of commissions.
        margin: ``reg_t`` refuses what an account cannot carry.
        history_days: Trading days of history before the day of a synthetic market.
        username: What ``system`` and ``sts`` frames tell.
        region: Whose midnight and Saturday count, on the market's clock.
        nightly_reset: Sessions break at the region's midnight.
        after_reset: What the break leaves of a brokerage session.
        maintenance: Saturday's window ``HH:MM-HH:MM`` in the region's time; empty for none.
        after_maintenance: What a client finds after it.
        idle_s: Wall seconds without a request after which the brokerage session ends; 0 never.
        run_on: The market's clock goes on after the end of the tape, if it follows the wall clock.
        parent_pid: The emulator ends when this process is gone; 0 for none.
        state_file: Where orders, executions, accounts, session and market time are kept, so that the emulator goes
            on from there when it is started again; empty for nowhere.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    market: tuple[str, ...] = ()
    synthetic_day: str = ""
    synthetic_instruments: tuple[str, ...] = ("AAPL", "MSFT", "IBM", "SPY", "EUR.USD")
    synthetic_days: int = 1
    synthetic_rate: float = 1.0
    universe: str = ""
    speed: Speed = 1.0
    autostart: bool = True
    fill: Literal["quote", "last"] = "quote"
    seed: int = 0
    tls: bool = False
    pacing: Literal["auto", "strict", "off"] = "auto"
    penalty_s: float = 900.0
    pacing_speed: float = 1.0
    login: Literal["ready", "no_bridge", "logged_out"] = "ready"
    authentication: AuthenticationSettings = AuthenticationSettings()
    connect_delay_s: float = 0.0
    heartbeat_s: float = 10.0
    conflation_ms: int = 500
    frames: Literal["text", "binary"] = "text"
    smd_lifetime_s: float = 900.0
    market_data_lines: int = 100
    qualities: tuple[str, ...] = ()
    order_status_delay_s: float = -1.0
    volume_factor: int = 40
    questions: Literal["default", "none", "all"] = "default"
    limits: QuestionLimits = QuestionLimits()
    accounts: tuple[str, ...] = ("DU1234567",)
    paper: Literal["auto", "yes", "no"] = "auto"
    fa_master: str = ""
    fa_groups: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    regular_hours: bool = False
    cash: float = 1_000_000.0
    currency: str = "USD"
    commission: Literal["fixed", "tiered", "none"] = "fixed"
    margin: Literal["reg_t", "off"] = "reg_t"
    history_days: int = 5
    username: str = "emulator"
    region: Literal["america", "europe", "asia"] = "america"
    nightly_reset: bool = False
    after_reset: Literal["ready", "no_bridge", "logged_out"] = "ready"
    maintenance: str = ""
    after_maintenance: Literal["ready", "no_bridge", "logged_out"] = "no_bridge"
    idle_s: float = 0.0
    run_on: bool = False
    parent_pid: int = 0
    state_file: str = ""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            # An endless amount of money, or a time that is no number, would break only later and elsewhere.
            self._check(
                not isinstance(value, float) or math.isfinite(value), name, value, "a number with an end"
            )
        self._check(bool(self.host.strip()), "host", self.host, "an address of this machine, as 127.0.0.1")
        for account in self.accounts:
            self._check(
                re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,29}", account) is not None,
                "accounts",
                account,
                "letters and digits, as DU1234567",
            )
        self._check(bool(self.username.strip()), "username", self.username, "a name")
        self._check(
            re.fullmatch("[A-Z]{3}", self.currency) is not None, "currency", self.currency, "a code, as USD"
        )
        self._check(0 <= self.port <= 65535, "port", self.port, "between 0 and 65535")
        self._check(
            bool(self.market or self.synthetic_instruments),
            "synthetic_instruments",
            self.synthetic_instruments,
            "at least one symbol",
        )
        names = self.synthetic_instruments
        self._check(len(set(names)) == len(names), "synthetic_instruments", names, "each symbol once")
        for entry in self.qualities:
            fine = re.fullmatch("(?:[0-9]{1,12}:)?[A-Za-z]{1,4}", entry) is not None
            self._check(fine, "qualities", entry, "CODE or CONID:CODE, as DPB or 265598:ZB")
        self._check(bool(self.accounts), "accounts", self.accounts, "at least one account id")
        self._check(len(set(self.accounts)) == len(self.accounts), "accounts", self.accounts, "all different")
        self._check(
            self.speed in ("max", "lockstep")
            or (isinstance(self.speed, (int, float)) and 0 < self.speed <= 1e6),
            "speed",
            self.speed,
            "above 0 and at most 1000000, 'max' or 'lockstep'",
        )
        self._check(
            not self.fa_master or self.fa_master in self.accounts,
            "fa_master",
            self.fa_master,
            "one of the accounts",
        )
        self._check(
            bool(self.fa_master) or not self.fa_groups, "fa_groups", self.fa_groups, "empty without fa_master"
        )
        known = {kind.value for kind in SecurityType} - {SecurityType.UNKNOWN.value}
        self._check(
            set(self.permissions) <= known, "permissions", self.permissions, f"of {', '.join(sorted(known))}"
        )
        parse_window(self.maintenance)
        for name in (
            "penalty_s",
            "connect_delay_s",
            "parent_pid",
            "smd_lifetime_s",
            "market_data_lines",
            "conflation_ms",
            "history_days",
            "idle_s",
        ):
            self._check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in (
            "synthetic_days",
            "synthetic_rate",
            "heartbeat_s",
            "volume_factor",
            "cash",
            "pacing_speed",
        ):
            self._check(getattr(self, name) > 0, name, getattr(self, name), "above 0")

    @staticmethod
    def _check(fine: bool, name: str, value: object, wanted: str) -> None:
        if not fine:
            raise UsageError(
                f"Emulator setting {name}: {value!r} cannot be used.", remedy=f"It must be {wanted}."
            )

    @property
    def is_paper(self) -> bool:
        """What the server says of the accounts."""
        if self.paper == "auto":
            return all(account.startswith("D") for account in self.accounts)
        return self.paper == "yes"

    @property
    def timeless(self) -> bool:
        """Market time has no fixed relation to wall time."""
        return self.speed in ("max", "lockstep")

    @property
    def strict_pacing(self) -> bool:
        return self.pacing == "strict" or (self.pacing == "auto" and not self.timeless)

    @property
    def status_delay_s(self) -> float:
        """Wall seconds before an unknown order's status is refused."""
        if self.order_status_delay_s >= 0:
            return self.order_status_delay_s
        return 0.0 if self.timeless else 5.0


def parse_window(text: str) -> tuple[time, time] | None:
    """Begin and end of ``HH:MM-HH:MM`` within a day; ``None`` of an empty text.

    Raises:
        UsageError: It is not written so, or ends before it begins.
    """
    if not text:
        return None
    begins, _, ends = text.partition("-")
    try:
        window = time.fromisoformat(begins), time.fromisoformat(ends)
    except ValueError:
        window = time(0), time(0)
    if window[0] >= window[1]:
        raise UsageError(
            f"Emulator setting maintenance: {text!r} cannot be used.", remedy="It must be like 18:00-22:30."
        )
    return window
