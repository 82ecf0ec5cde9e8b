"""The commands ``cancel``, ``flatten``, ``halt`` and ``resume``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from bt_ibkr.app.cancelling import Cancelled, cancel_all, cancel_orders
from bt_ibkr.app.flattening import Flattened, flatten
from bt_ibkr.app.journals import existing, known_accounts, move_trading, place_of, visiting
from bt_ibkr.app.order_list import read_orders
from bt_ibkr.app.trade import Ask
from bt_ibkr.app.visit import Address, Visit, visit_account
from bt_ibkr.cli.asking import ask_account
from bt_ibkr.cli.running import EXIT_DIFFERENCE
from bt_ibkr.cli.tables import (
    console,
    put_json,
    show_cancelled,
    show_errors,
    show_table,
    show_trading,
    trading_row,
    undone,
)
from bt_ibkr.errors import BtIbkrError, UsageError
from bt_ibkr.journal import Journal, journal_path
from bt_ibkr.model.order import OrderReport
from bt_ibkr.model.trading import Trading, TradingState


class CancelWishes(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders: named ones, a strategy's, or all."""

    targets: tuple[str, ...] = ()
    strategy: str = ""
    external: bool = False
    wait_s: float = 15.0


class HaltWishes(msgspec.Struct, frozen=True, kw_only=True):
    """How far a halt goes."""

    reducing: bool = False
    cancel: bool = True
    external: bool = False
    wait_s: float = 15.0
    reason: str = ""


def _ask() -> Ask | None:
    return ask_account(Console(stderr=True, soft_wrap=True, highlight=False))


def _ended(told: dict[str, Any], errors: list[str], code: int, *, as_json: bool) -> int:
    if as_json:
        put_json(told | {"errors": errors, "exit_code": code})
    else:
        show_errors(errors)
    return code


# -- cancel --------------------------------------------------------------------------------------------


def cancel_command(address: Address, journal_file: str, wishes: CancelWishes, *, as_json: bool) -> int:
    """Cancel, wait, tell.

    Returns:
        0 if nothing of it is open any more, else 10.

    Raises:
        UsageError: There is no such open order.
        NotArmedError: The account may not be traded.
    """

    async def work(visit: Visit) -> tuple[str, list[Cancelled]]:
        with visiting(Path(journal_file) if journal_file else journal_path(visit.account)) as journal:
            return visit.account, await _cancel(visit, journal, wishes)

    account, lines = visit_account(address, work, trades=True, ask=_ask())
    errors = undone(lines)
    if not as_json:
        show_cancelled(console(), lines)
    told = {"account": account, "orders": lines}
    return _ended(told, errors, EXIT_DIFFERENCE if errors else 0, as_json=as_json)


async def _cancel(visit: Visit, journal: Journal, wishes: CancelWishes) -> list[Cancelled]:
    deadline = time.monotonic() + wishes.wait_s
    listing = await read_orders(visit, journal, visit.account)
    live = listing.live(external=wishes.external or bool(wishes.targets))
    chosen = live
    if wishes.strategy:
        owners = listing.owners
        chosen = [
            one
            for one in live
            if one.order_id in owners and owners[one.order_id].intent.strategy == wishes.strategy
        ]
    if wishes.targets:
        names = {one.order_id: one for one in live}
        names |= {
            order.key: names[order_id] for order_id, order in listing.owners.items() if order_id in names
        }
        chosen = [_named(target, names, journal) for target in dict.fromkeys(wishes.targets)]
    pairs = [(one, listing.owners.get(one.order_id)) for one in chosen]
    return await cancel_orders(visit, journal, visit.account, pairs, deadline)


def _named(target: str, names: dict[str, OrderReport], journal: Journal) -> OrderReport:
    if target in names:
        return names[target]
    known = journal.order(target)
    why = "is not among the open orders that IBKR lists"
    if known is not None:
        why += f"; the journal has it as {known.state.value}"
    raise UsageError(
        f"The order {target!r} {why}. Nothing was cancelled.", remedy="bt-ibkr orders lists what is open."
    )


# -- the trading state ---------------------------------------------------------------------------------


class _Halt:
    """One ``halt``: what it has done so far, whatever fails later."""

    def __init__(self, wishes: HaltWishes, out: Console | None) -> None:
        self._wishes = wishes
        self._out = out
        self.journals: list[dict[str, Any]] = []
        self.lines: list[Cancelled] = []
        self.errors: list[str] = []
        self.code = 0

    def failed(self, problem: BtIbkrError) -> None:
        self.errors.append(str(problem))
        self.code = self.code or problem.exit_code

    def write(self, account: str, place: Path) -> None:
        """The first thing: once this is on the disk no order leaves, whoever places it."""
        to = Trading.REDUCING if self._wishes.reducing else Trading.HALTED
        try:
            with visiting(place) as journal:
                state = move_trading(journal, to, self._wishes.reason or "halted by hand")
        except BtIbkrError as problem:
            self.failed(problem)
            return
        self.journals.append(
            {"account": account or None, "journal": str(place), "trading": trading_row(state)}
        )
        if self._out is not None:
            show_trading(self._out, account or str(place), state)

    async def cancel(self, visit: Visit, account: str, place: Path) -> None:
        wishes = self._wishes
        try:
            with visiting(place) as journal:
                found = await cancel_all(
                    visit, journal, account, external=wishes.external, wait_s=wishes.wait_s
                )
        except BtIbkrError as problem:
            self.failed(problem)
            return
        self.lines += found

    def left_alone(self, account: str, place: Path, accounts: tuple[str, ...]) -> None:
        """An account that this login does not have: halted, but nothing can be cancelled in it from here."""
        with visiting(place) as journal:
            standing = journal.orders(open_only=True)
        if standing:
            self.errors.append(
                f"Account {account} is halted, but is not one of this login's ({', '.join(accounts)}): "
                f"{len(standing)} of its orders may be open."
            )


def halt_command(address: Address, journal_file: str, wishes: HaltWishes, *, as_json: bool) -> int:
    """Write the trading state, and only then connect and cancel.

    Returns:
        0 if trading is halted and nothing is open any more; 10 if something is; else the code of what failed. What
        could be halted is halted in each case.
    """
    out = None if as_json else console()
    halted = _Halt(wishes, out)
    places = _places(address.account, journal_file)
    for account, place in places.items():
        halted.write(account, place)
    if wishes.cancel:

        async def work(visit: Visit) -> None:
            targets = places or {visit.account: journal_path(visit.account)}
            if not places:
                halted.write(*next(iter(targets.items())))
            for account, place in targets.items():
                owner = account or visit.account
                if owner in visit.accounts:
                    await halted.cancel(visit, owner, place)
                else:
                    halted.left_alone(owner, place, visit.accounts)

        try:
            visit_account(address, work, trades=False)
        except BtIbkrError as problem:
            halted.failed(problem)
            if halted.journals:
                halted.errors.append("Trading is halted, but open orders were not cancelled.")
        if out is not None:
            show_cancelled(out, halted.lines)
    elif not places:
        halted.failed(
            UsageError(
                "No account has a journal: there is nothing to halt.", remedy="Name it with --account ID."
            )
        )
    halted.errors += undone(halted.lines)
    code = halted.code or (EXIT_DIFFERENCE if halted.errors else 0)
    told = {"journals": halted.journals, "cancelled": halted.lines}
    return _ended(told, halted.errors, code, as_json=as_json)


def _places(account: str, journal_file: str) -> dict[str, Path]:
    """Journals to halt, by account: the one that is named, or all."""
    if journal_file or account:
        return {account: place_of(account, journal_file)}
    return {one: journal_path(one) for one in known_accounts()}


def resume_command(account: str, journal_file: str, reason: str, *, reducing: bool, as_json: bool) -> int:
    """Let orders leave again.

    Raises:
        UsageError: Which journal is meant is not clear, or there is none.
    """
    place = existing(place_of(account, journal_file))
    to = Trading.REDUCING if reducing else Trading.ACTIVE
    with visiting(place) as journal:
        before = journal.trading_state()
        if reducing and before.mode is Trading.ACTIVE:
            raise UsageError(
                "Trading is active: there is nothing to resume.",
                remedy="bt-ibkr halt --reducing restricts it.",
            )
        state = move_trading(journal, to, reason or "resumed by hand")
    if as_json:
        put_json({"journal": str(place), "was": trading_row(before), "trading": trading_row(state)})
    else:
        show_trading(console(), str(place), state)
    return 0


# -- flatten -------------------------------------------------------------------------------------------


def flatten_command(
    address: Address, journal_file: str, reason: str, *, external: bool, wait_s: float, as_json: bool
) -> int:
    """Halt, cancel, close, wait, tell what is left.

    Returns:
        0 if the account is flat and nothing is open, else 10.

    Raises:
        NotArmedError: The account may not be traded: nothing was done.
        OrderRefusedError: Its positions are being closed already; trading is halted.
        BtIbkrError: Nothing was closed; trading is halted if the account was reached.
    """
    out = None if as_json else console()

    async def work(visit: Visit) -> tuple[str, TradingState, Flattened]:
        place = Path(journal_file) if journal_file else journal_path(visit.account)
        with visiting(place, visit.clock) as journal:
            state = move_trading(journal, Trading.HALTED, reason)
            if out is not None:
                show_trading(out, visit.account, state)
            return visit.account, state, await flatten(visit, journal, external=external, wait_s=wait_s)

    account, state, found = visit_account(address, work, trades=True, ask=_ask())
    errors = undone(found.cancelled)
    errors += [
        f"Order {one.key} is {one.state}, {one.filled:g} of {one.quantity:g} executed"
        + (f": {one.text}" if one.text else ".")
        for one in found.closed
        if one.state != "filled"
    ]
    errors += [f"Position in {one.symbol} ({one.conid}) is {one.quantity:g}." for one in found.left]
    errors += [found.problem] if found.problem else []
    if out is not None:
        show_cancelled(out, found.cancelled)
        show_table(
            out,
            "Closed positions",
            ("order", "id", "side", "size", "symbol", "filled", "state"),
            (
                (one.key, one.order_id, one.side, one.quantity, one.symbol, one.filled, one.state)
                for one in found.closed
            ),
            empty="no positions",
        )
        out.print("[bold red]not flat[/]" if found.left or found.problem else f"[green]{account} is flat[/]")
    told = {
        "account": account,
        "trading": trading_row(state),
        "cancelled": found.cancelled,
        "closed": found.closed,
        "left": found.left,
    }
    return _ended(told, errors, EXIT_DIFFERENCE if errors else 0, as_json=as_json)
