"""Portfolio: what the outer session shows of accounts.

Before ``/portfolio/accounts`` (or subaccounts) was asked, the rest answers empty without an error, as the
real server does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.portfolio import rows, summary
from bt_ibkr.emulator.services.portfolio.figures import Figures, figures
from bt_ibkr.model.portfolio import Position

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core


async def accounts(core: Core, call: Call) -> object:
    core.session.portfolio_asked = True
    return [rows.account(core, one, brokerage=core.session.ready) for one in core.session.accounts]


async def subaccounts(core: Core, call: Call) -> object:
    core.session.portfolio_asked = True
    return [rows.account(core, one, brokerage=False) for one in core.session.accounts]


def _asked(core: Core, call: Call) -> Figures | None:
    """The path's account, ``None`` while ``/portfolio/accounts`` was not asked."""
    account = core.account(call.path["account"])
    return figures(core, account) if core.session.portfolio_asked else None


def _positions(core: Core, found: Figures) -> tuple[Position, ...]:
    """What is told of an account's positions, which may be wrong if a fault wants it."""
    return core.faults.positions.told(found.account, found.positions)


async def meta(core: Core, call: Call) -> object:
    found = _asked(core, call)
    return {} if found is None else rows.account(core, found.account, brokerage=False)


async def positions(core: Core, call: Call) -> object:
    """A page of positions; the first read of an account has no names yet."""
    page = call.integer("page", call.path.get("page", "0"))
    found = _asked(core, call)
    if found is None or page < 0:
        return []
    part = _positions(core, found)[page * rows.PAGE : (page + 1) * rows.PAGE]
    if found.account not in core.session.positions_read:
        core.session.positions_read.add(found.account)
        return [rows.position(one) for one in part]
    return [rows.named_position(core, one) for one in part]


async def positions2(core: Core, call: Call) -> object:
    found = _asked(core, call)
    return [] if found is None else [rows.position2(one, found.time_ns) for one in _positions(core, found)]


async def position(core: Core, call: Call) -> object:
    conid = call.integer("conid", call.path["conid"])
    found = _asked(core, call)
    if found is None:
        return []
    return [rows.named_position(core, one) for one in _positions(core, found) if one.conid == conid]


async def positions_of_conid(core: Core, call: Call) -> object:
    """The instrument's position in every account that holds it."""
    conid = call.integer("conid", call.path["conid"])
    if not core.session.portfolio_asked:
        return {}
    answer: dict[str, object] = {}
    for account in core.session.accounts:
        held = [one for one in _positions(core, figures(core, account)) if one.conid == conid]
        if held:
            answer[account] = [rows.position(one) | {"multiplier": 0.0, "strike": "0"} for one in held]
    return answer


async def combo_positions(core: Core, call: Call) -> object:
    core.account(call.path["account"])
    return []


async def invalidate(core: Core, call: Call) -> object:
    core.faults.positions.invalidated(core.account(call.path["account"]))
    return {"message": "success"}


async def ledger(core: Core, call: Call) -> object:
    found = _asked(core, call)
    return {} if found is None else rows.ledger(found)


async def portfolio_summary(core: Core, call: Call) -> object:
    found = _asked(core, call)
    return {} if found is None else summary.body(found)


async def allocation(core: Core, call: Call) -> object:
    found = _asked(core, call)
    return {} if found is None else rows.allocation((found,))


async def allocations(core: Core, call: Call) -> object:
    """Several accounts together."""
    asked = call.object().get("acctIds")
    if not isinstance(asked, list) or not asked:
        raise errors.bad_request("acctIds is required")
    found = tuple(figures(core, core.account(str(one))) for one in asked)
    return rows.allocation(found) if core.session.portfolio_asked else {}


async def account_summary(core: Core, call: Call) -> object:
    return rows.account_summary(figures(core, core.account(call.path["account"])))


async def account_segments(core: Core, call: Call) -> object:
    """A sub-resource of the account's summary."""
    found = figures(core, core.account(call.path["account"]))
    part = call.path["part"]
    if part == "market_value":
        return rows.market_value(found)
    if part not in ("available_funds", "balances", "margins"):
        raise errors.not_found()
    return rows.segments(found, part)


async def partitioned_pnl(core: Core, call: Call) -> object:
    """Profit and loss of all accounts; the first call of a session answers none."""
    if not core.session.pnl_asked:
        core.session.pnl_asked = True
        return {"upnl": {}}
    answer: dict[str, object] = {}
    for account in core.session.accounts:
        answer |= rows.pnl(figures(core, account))
    return {"upnl": answer}
