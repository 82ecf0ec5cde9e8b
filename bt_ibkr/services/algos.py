"""IBKR's algorithms: which a contract takes, and whether an order names one of them rightly."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from typing import NoReturn

from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.order import AlgoValue, OrderTicket
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire.algos import Algo, AlgoParameter, algos

__all__ = ["Algo", "AlgoParameter", "AlgoService", "check_algo"]

#: The server fills its list at the first request and may answer that one with nothing.
_TRIES = 2
_TIME = re.compile(r"(\d{8}-)?([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?( [A-Za-z/_]+)?")


class AlgoService:
    """Algorithms by contract, kept for the session's life.

    Args:
        http: The session's REST client.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._known: dict[int, tuple[Algo, ...]] = {}

    async def of(self, conid: int) -> tuple[Algo, ...]:
        """The algorithms of a contract, with parameters; none if it takes none.

        Raises:
            SessionError: The server did not answer, or with an error (503 for a contract it does not know).
            WireError: What it answered is no list of algorithms.
        """
        known = self._known.get(conid)
        if known is not None:
            return known
        found: tuple[Algo, ...] = ()
        for _ in range(_TRIES):
            parameters = {"addDescription": "1", "addParams": "1"}
            found = algos(await self._http.get(f"/iserver/contract/{conid}/algos", parameters))
            if found:
                self._known[conid] = found
                break
        return found

    async def check(self, ticket: OrderTicket) -> None:
        """Refuse an order whose algorithm the contract does not take, before it is sent.

        Raises:
            OrderRefusedError: See ``check_algo``. Other errors as ``of``.
        """
        if ticket.algo is not None:
            check_algo(ticket, await self.of(ticket.contract_id))


def check_algo(ticket: OrderTicket, offered: tuple[Algo, ...]) -> None:
    """Whether the ticket's algorithm is offered, with all the parameters it needs and no other.

    Raises:
        OrderRefusedError: It is not; the message names algorithm, parameter, value and what is allowed.
    """
    if ticket.algo is None:
        return
    algo = next((one for one in offered if one.algo_id == ticket.algo), None)
    if algo is None:
        names = [one.algo_id for one in offered]
        _refuse(ticket, "is not offered for this contract", _choose(ticket.algo, names))
    known = {one.parameter_id: one for one in algo.parameters}
    given = dict(ticket.algo_parameters)
    for name, value in given.items():
        parameter = known.get(name)
        if parameter is None:
            _refuse(ticket, f"has no parameter {name!r}", _choose(name, list(known)))
        problem = _problem(parameter, value)
        if problem:
            _refuse(ticket, f"parameter {name}={value!r:.60} {problem[0]}", problem[1])
    for parameter in algo.parameters:
        if parameter.required and parameter.parameter_id not in given:
            about = ", ".join(parameter.choices) or parameter.description or parameter.kind
            _refuse(ticket, f"parameter {parameter.parameter_id} is missing", f"Give it ({about}).")


def _refuse(ticket: OrderTicket, why: str, remedy: str) -> NoReturn:
    raise OrderRefusedError(
        f"{ticket.describe()}: algo {ticket.algo!r} {why}.", remedy=f"{remedy} It was not sent."
    )


def _choose(given: str, names: list[str]) -> str:
    if not names:
        return "It has none; leave it out."
    near = get_close_matches(given, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(names)}."


def _problem(parameter: AlgoParameter, value: AlgoValue) -> tuple[str, str] | None:
    """What is wrong with a value, and what would be right."""
    if parameter.choices:
        return (
            None if value in parameter.choices else ("is not allowed", f"Use {', '.join(parameter.choices)}.")
        )
    kind = parameter.kind
    if kind == "Boolean":
        return None if isinstance(value, bool) else ("is not True or False", "Give True or False.")
    if kind in ("Double", "Integer"):
        return _number_problem(parameter, value)
    if kind == "Time" and not (isinstance(value, str) and _TIME.fullmatch(value)):
        return "is no time", "Write it as HH:MM:SS, after YYYYMMDD- if it is of another day."
    if kind == "String" and not isinstance(value, str):
        return "is no text", "Give a text."
    return None


def _number_problem(parameter: AlgoParameter, value: AlgoValue) -> tuple[str, str] | None:
    low, high = parameter.minimum, parameter.maximum
    between = f"Give a number from {low} to {high}." if low is not None else "Give a number."
    if isinstance(value, (bool, str)) or not math.isfinite(value):
        return "is no number", between
    if parameter.kind == "Integer" and value != int(value):
        return "is no whole number", between
    if (low is not None and value < low) or (high is not None and value > high):
        return "is out of range", between
    return None
