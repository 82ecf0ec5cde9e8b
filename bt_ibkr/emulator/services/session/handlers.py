"""Session, accounts and questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call, Text
from bt_ibkr.emulator.services.session import bodies
from bt_ibkr.emulator.services.session.state import Tier

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Most ids one suppress request may hold.
MAX_SUPPRESSED = 51


async def tickle(core: Core, call: Call) -> object:
    """Keep the session alive; says so in the body, not in the status, if nobody is logged in."""
    if core.session.tier is Tier.LOGGED_OUT:
        return {"error": "no session"}
    return bodies.tickle(core)


async def auth_status(core: Core, call: Call) -> object:
    body = bodies.auth_status(core.session, fail=True)
    if core.session.ready and core.faults.session.status_doubted():
        body |= {"authenticated": False, "established": False}
    return body


async def init(core: Core, call: Call) -> object:
    """Open the brokerage session; an open one stays as it is. Status 200 does not mean that it is open.

    Raises:
        ApiError: 500 with ``publish: false``, as the real server answers it.
    """
    body = call.object()
    if not body.get("publish"):
        raise errors.error(500, "failed to generate sso dh token", with_code=True)
    core.faults.session.open(compete=body.get("compete") is True)
    return bodies.init_status(core.session)


async def reauthenticate(core: Core, call: Call) -> object:
    core.faults.session.open(compete=False)
    return {"message": "triggered"}


async def logout(core: Core, call: Call) -> object:
    core.set_tier(Tier.LOGGED_OUT)
    return {"status": True}


async def validate(core: Core, call: Call) -> object:
    return bodies.sso_validate(core)


async def accounts(core: Core, call: Call) -> object:
    core.session.accounts_asked = True
    return bodies.accounts(core)


async def switch_account(core: Core, call: Call) -> object:
    """Select the account whose live orders are shown."""
    if not call.raw.strip():
        raise errors.bad_request("accountId needed")
    account = call.object().get("acctId")
    if account not in core.session.accounts:
        raise errors.error(500, f"Account {account} not found", with_code=True)
    if account == core.session.selected:
        return {"success": "Account already set"}
    core.session.selected = account
    return {"set": True, "acctId": account}


async def suppress(core: Core, call: Call) -> object:
    """Do not ask these questions again in this brokerage session; unknown ids are accepted."""
    ids = call.object().get("messageIds")
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise errors.error(500, "messageIds are required", with_code=True)
    if len(ids) > MAX_SUPPRESSED:
        raise errors.bad_request(f"at most {MAX_SUPPRESSED} messageIds")
    core.session.suppressed.update(ids)
    return {"status": "submitted"}


async def suppress_reset(core: Core, call: Call) -> object:
    core.session.suppressed.clear()
    return {"status": "submitted"}


async def notification(core: Core, call: Call) -> object:
    """The answer to a prompt; the real server does not tell whether there was one."""
    body = call.object()
    if not {"orderId", "reqId", "text"} <= body.keys():
        raise errors.bad_request("orderId, reqId and text are required")
    core.prompts.answer(core, body["orderId"], body["reqId"], body["text"])
    return Text("Request was submitted")
