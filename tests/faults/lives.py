"""Lives of a trading program that may end at any point, and what must hold when the next one has taken over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.clock import NS_PER_S, SystemClock
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.journal import Journal, JournalOrder
from bt_ibkr.model.intent import OPEN, OrderState

ACCOUNT = "DU1234567"
ENDED = {"Filled": OrderState.FILLED, "Cancelled": OrderState.CANCELLED}


class Mortals:
    """The process whose forks trade and die."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mortal.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def live(self, **asked: Any) -> int:
        """One life; its exit code, or the negative number of the signal that ended it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline())["code"])

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


class Place:
    """An emulator with the script's market, a journal, and what is put down between lives."""

    def __init__(self, emulator: EmulatorThread, folder: Path) -> None:
        self.emulator = emulator
        self.folder = folder
        folder.mkdir()
        self.journal = folder / "journal.sqlite"

    def life(
        self, mortals: Mortals, *, kill_at: int = 0, script: str = "everything", largest: int = 0
    ) -> int:
        """One life; its exit code, or the negative number of the signal that ended it.

        Args:
            mortals: Who lives it.
            kill_at: The step to die at; 0 for none. The steps that were reached are written down if it is given.
            script: What is traded.
            largest: Bytes that no file may grow beyond; 0 for any.
        """
        return mortals.live(
            url=self.emulator.url,
            control=self.emulator.control,
            journal=str(self.journal),
            kill_at=kill_at,
            script=script,
            largest=largest,
            log=str(self.folder / "steps") if kill_at else "",
            view=str(self.folder / "view.json"),
        )

    def let_pass(self, seconds: float) -> None:
        """The market goes on with nobody there."""

        def move(server: Any) -> None:
            server.drive.step(
                until_ns=server.core.now_ns + int(seconds * NS_PER_S), max_events=None, received={}
            )

        if seconds:
            self.emulator.call(move)

    def steps(self) -> list[str]:
        """The names of the points that were reached."""
        return (self.folder / "steps").read_text().splitlines()

    def view(self) -> dict[str, Any]:
        """What the last life that came to its end saw."""
        seen: dict[str, Any] = json.loads((self.folder / "view.json").read_text())
        return seen

    # -- the oracle ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Ledger, journal and strategy agree, and nothing is there twice."""
        ledger = self.emulator.ledger()
        view = self.view()
        journal = Journal.open(self.journal, clock=SystemClock(), exclusive=False)
        try:
            orders = journal.orders()
            recorded = [one for one in journal.executions() if not one.superseded]
        finally:
            journal.close()
        self._nothing_twice(ledger, orders)
        self._journal_is_right(ledger, orders)
        theirs = {str(one["execution_id"]) for one in ledger["executions"]}
        assert {one.execution.execution_id for one in recorded} == theirs
        assert len(recorded) == len(theirs)
        by_id = {order.order_id: order.key for order in orders}
        for one in recorded:
            assert one.key == by_id[one.execution.order_id], one
        self._view_is_right(ledger, orders, view)
        self._groups_are_whole(ledger, orders)

    @staticmethod
    def _nothing_twice(ledger: dict[str, Any], orders: tuple[JournalOrder, ...]) -> None:
        family = Counter(order.intent.parent_key or order.key for order in orders)
        for key, number in ledger["by_client_id"].items():
            assert number <= family[key], (key, number, family)
        assert len(ledger["orders"]) <= len(orders)

    @staticmethod
    def _journal_is_right(ledger: dict[str, Any], orders: tuple[JournalOrder, ...]) -> None:
        known = {order.order_id: order for order in orders if order.order_id is not None}
        assert set(known) == {str(one["order_id"]) for one in ledger["orders"]}
        for one in ledger["orders"]:
            order = known[str(one["order_id"])]
            ticket = order.intent.ticket
            wanted = ENDED.get(one["status"], OrderState.WORKING)
            assert order.state is wanted, (order, one)
            assert order.filled == Decimal(one["filled"]), (order, one)
            if order.state in OPEN:
                assert ticket.quantity == Decimal(one["quantity"]), (order, one)
                assert (ticket.limit_price, ticket.stop_price) == (one["limit_price"], one["stop_price"])
        for order in orders:
            if order.order_id is None:
                assert order.state in (OrderState.ABSENT, OrderState.REJECTED), order

    @staticmethod
    def _view_is_right(
        ledger: dict[str, Any], orders: tuple[JournalOrder, ...], view: dict[str, Any]
    ) -> None:
        account = ledger["accounts"][ACCOUNT]
        held = {conid: float(one["quantity"]) for conid, one in account["positions"].items()}
        assert view["positions"] == {conid: size for conid, size in held.items() if size}
        assert view["cash"] == pytest.approx(float(account["cash"]["USD"]), abs=0.005)
        assert view["executions"] == sorted(one["execution_id"] for one in ledger["executions"])
        assert view["external"] == []
        assert view["problems"] == []
        working = {order.key: order for order in orders if order.state in OPEN}
        assert set(view["open"]) == set(working)
        for key, shown in view["open"].items():
            order = working[key]
            assert shown["order_id"] == order.order_id
            assert shown["size"] == order.intent.ticket.quantity
            assert shown["filled"] == order.filled

    @staticmethod
    def _groups_are_whole(ledger: dict[str, Any], orders: tuple[JournalOrder, ...]) -> None:
        """Of a group one executes at most, and then the others have ended; a bracket is there as a whole."""
        groups: dict[str, list[JournalOrder]] = {}
        for order in orders:
            if order.intent.group is not None:
                groups.setdefault(order.intent.group, []).append(order)
        for name, members in groups.items():
            members += [order for order in orders if order.key == name and order not in members]
            executed = [order for order in members if order.filled]
            assert len(executed) <= 1, members
            if executed:
                assert not any(order.is_open for order in members if order is not executed[0]), members
        for parent in {order.intent.parent_key for order in orders} - {None}:
            family = [order for order in orders if parent in (order.key, order.intent.parent_key)]
            assert len({order.order_id is None for order in family}) == 1, family
