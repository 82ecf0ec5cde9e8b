"""A short visit to an account: logged on, looked at or acted on, left again. No stream, no strategy.

It may stand beside a running strategy: REST alone is used, so that the WebSocket is left to the strategy, and nothing
is logged out at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, TypeVar

import aiohttp
import msgspec

from bt_ibkr.app.login_file import default_base
from bt_ibkr.app.sim import market_clock, pacing_speed
from bt_ibkr.app.trade import Ask, emulator_at
from bt_ibkr.clock import Clock, SystemClock
from bt_ibkr.config import Competing, SessionSettings, Trust, rest_base
from bt_ibkr.connection.guard import AccountGuard, AccountKind, Standing
from bt_ibkr.errors import BtIbkrError, NotArmedError, SessionError
from bt_ibkr.journal import steps
from bt_ibkr.login import GatewayLogin, Login
from bt_ibkr.model.portfolio import Position
from bt_ibkr.services.contract_cache import ContractCache, cache_path, cache_scope
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.http import HttpClient
from bt_ibkr.session.log_on import LogOn
from bt_ibkr.session.loop import new_event_loop
from bt_ibkr.session.pacing import Limit, gate_of, limits_of

T = TypeVar("T")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where an account is, and how it is reached.

    Attributes:
        gateway: REST base; empty for where ``login`` usually logs on.
        account: Empty for the login's selected one.
        mode: The kind that the account must be of; empty where nothing is traded and any will do.
        confirm_account: The account's id once more, as the confirmation of mode ``live``.
        competing: What to do about another login that holds the brokerage session.
        contract_cache: Whether answers on contracts may come from the cache, and are kept; an emulator's never are.
    """

    gateway: str = ""
    trust: Trust = Trust()
    login: Login = GatewayLogin()
    account: str = ""
    mode: Literal["", "paper", "live"] = ""
    confirm_account: str = ""
    competing: Competing = "yield"
    contract_cache: bool = True


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """What can be asked while the visit lasts.

    Attributes:
        account: The one that was named, or the login's selected one.
        accounts: All of the login, the selected one first.
        clock: The market's: an emulator has a time of its own.
        limits: Of requests, as the session keeps them.
        emulated: The server is an emulator.
    """

    account: str
    accounts: tuple[str, ...]
    http: HttpClient
    portfolio: PortfolioService
    orders: OrderService
    contracts: ContractService
    clock: Clock
    limits: tuple[Limit, ...] = ()
    emulated: bool = False


async def read_positions(visit: Visit) -> tuple[Position, ...]:
    """The account's positions; an empty list is believed only where nothing is worth anything.

    Raises:
        BtIbkrError: They could not be read whole: the account must not be taken for flat.
    """
    positions = await visit.portfolio.positions(visit.account)
    if not positions:
        base = (await visit.portfolio.ledger(visit.account)).get("BASE")
        if base is not None and base.stock_value:
            raise SessionError(
                f"IBKR lists no position of {visit.account}, but values its stocks at {base.stock_value}: the list "
                "is not whole.",
                remedy="Try it again in a moment.",
            )
    return positions


def visit_account(
    address: Address, work: Callable[[Visit], Awaitable[T]], *, trades: bool, ask: Ask | None = None
) -> T:
    """Visit the account, do ``work`` there, leave; from a thread without a loop.

    Args:
        address: Where.
        work: What is done.
        trades: Mode and confirmation are wanted as for a run. Without, an account of any kind may be looked at; only
            a mode that was named is held to.
        ask: Asks a person for the account's id, where mode ``live`` was not confirmed.

    Raises:
        NotArmedError: The account is not of the mode's kind, or not confirmed.
        UsageError: It is not one of the login's.
        SessionError: The way there.
    """
    guard = _guard(address, trades, ask)
    base = rest_base(address.gateway or default_base(address.login))
    policy = QuestionPolicy()
    settings = SessionSettings(
        base_url=base,
        trust=address.trust,
        login=address.login,
        competing=address.competing,
        suppress=tuple(sorted(policy.suppress)),
        contract_cache=address.contract_cache,
    )
    clock: Clock = SystemClock()
    with contextlib.ExitStack() as stack:
        emulator = emulator_at(settings, stack)
        if emulator is not None:
            settings = msgspec.structs.replace(
                settings, pacing_speed=pacing_speed(emulator.state), contract_cache=False
            )
            clock = market_clock(emulator.state)

    async def visit() -> T:
        async with _visiting(settings, guard, policy, clock, emulated=emulator is not None) as visited:
            if not trades:
                check_kind(address.mode, guard)
            return await work(visited)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(visit())


def _guard(address: Address, trades: bool, ask: Ask | None) -> AccountGuard:
    if not trades:
        return AccountGuard(None, account=address.account or None)
    return AccountGuard(
        address.mode or "paper",
        account=address.account or None,
        confirm_account=address.confirm_account or None,
        ask=None if ask is None else lambda standing: ask(standing.account),
    )


def check_kind(mode: str, guard: AccountGuard) -> None:
    """Looking needs no confirmation, but a mode that was named must be the account's."""
    standing = guard.passed
    if mode and standing is not None and standing.kind is not AccountKind(mode):
        raise NotArmedError(
            f"Mode {mode} was asked for, but account {standing.account} {standing.told}.",
            remedy="Leave --mode out, or name an account of that kind.",
        )


@contextlib.asynccontextmanager
async def _visiting(
    settings: SessionSettings, guard: AccountGuard, policy: QuestionPolicy, clock: Clock, *, emulated: bool
) -> AsyncIterator[Visit]:
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"User-Agent": "bt_ibkr", "Accept": "*/*"}
    ) as client:
        http = HttpClient(client, settings, gate_of(settings))
        try:
            log_on = LogOn(http, settings, lambda what: None)
            await http.log_on()
            await log_on.run(await log_on.tickle())
            told = log_on.accounts
            if told is None or not told.accounts:
                raise SessionError("This login has no account.")
            accounts = tuple(
                sorted((one.account_id for one in told.accounts), key=lambda one: one != told.selected)
            )
            account = guard.choose(accounts)
            guard.admit(Standing(accounts=accounts, account=account, is_paper=told.is_paper))
            portfolio = PortfolioService(http, lambda: told)
            cache = (
                ContractCache(cache_path(), cache_scope(settings.base_url, accounts))
                if settings.contract_cache
                else None
            )
            contracts = ContractService(http, clock, cache)
            try:
                yield Visit(
                    account=account,
                    accounts=accounts,
                    http=http,
                    portfolio=portfolio,
                    orders=OrderService(http, policy, step=steps.step),
                    contracts=contracts,
                    clock=clock,
                    limits=limits_of(settings),
                    emulated=emulated,
                )
            finally:
                contracts.close()
                # A strategy that shares the session reads the lists of the account that it selected.
                with contextlib.suppress(BtIbkrError):
                    await portfolio.give_back(accounts[0])
        finally:
            await http.close()
