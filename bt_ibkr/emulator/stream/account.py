"""Topics of the account: ``spl`` (profit and loss), ``sld`` (ledger), ``ssd`` (summary), by market time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.portfolio import rows, summary
from bt_ibkr.emulator.services.portfolio.figures import Figures, figures
from bt_ibkr.emulator.stream.connection import Connection

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

PNL_PERIOD_NS = NS_PER_S
LEDGER_PERIOD_NS = 10 * NS_PER_S


class _Periodic(ABC):
    """Calls ``_tell`` once in a period of market time, as long as somebody listens."""

    def __init__(self, core: Core, period_ns: int) -> None:
        self._core = core
        self._period_ns = period_ns
        self._timer: int | None = None

    @property
    @abstractmethod
    def _wanted(self) -> bool:
        """Whether anybody listens."""

    @abstractmethod
    def _tell(self) -> None:
        """Send what is due."""

    def _plan(self) -> None:
        if self._timer is None and self._wanted:
            engine = self._core.engine
            self._timer = engine.schedule(engine.now_ns + self._period_ns, self._due)

    def _due(self, now_ns: int) -> None:
        self._timer = None
        if self._wanted:
            self._tell()
        self._plan()

    def restart(self) -> None:
        """The market began anew and has forgotten its timers."""
        self._timer = None
        self._plan()


class PnlStreams(_Periodic):
    """Topic ``spl``: all accounts, when something changed."""

    def __init__(self, core: Core) -> None:
        super().__init__(core, PNL_PERIOD_NS)
        self._told: dict[Connection, dict[str, object]] = {}

    @property
    def _wanted(self) -> bool:
        return bool(self._told)

    def subscribe(self, connection: Connection) -> None:
        self._told[connection] = {}
        self._send(connection, self._rows())
        self._plan()

    def unsubscribe(self, connection: Connection) -> None:
        self._told.pop(connection, None)

    def _rows(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for account in self._core.session.accounts:
            found |= rows.pnl(figures(self._core, account))
        return found

    def _tell(self) -> None:
        found = self._rows()
        for connection in self._told:
            self._send(connection, found)

    def _send(self, connection: Connection, found: dict[str, object]) -> None:
        if self._told[connection] != found:
            self._told[connection] = found
            connection.send({"topic": "spl", "args": found})


class _AccountStreams(_Periodic):
    """Topics with an account, keys and fields: each entry blank unless it changed."""

    topic: str

    def __init__(self, core: Core) -> None:
        super().__init__(core, LEDGER_PERIOD_NS)
        self._asked: dict[tuple[Connection, str], tuple[frozenset[str], frozenset[str]]] = {}
        self._told: dict[tuple[Connection, str], dict[str, dict[str, Any]]] = {}

    @abstractmethod
    def _entries(self, found: Figures) -> dict[str, dict[str, Any]]:
        """Entries by key, without ``key`` and ``timestamp``."""

    @property
    def _wanted(self) -> bool:
        return bool(self._asked)

    def subscribe(self, connection: Connection, account: str, arguments: dict[str, Any]) -> None:
        """Begin; the first frame comes at once.

        Raises:
            ApiError: The account is not one of ours.
        """
        if account not in self._core.session.accounts:
            raise errors.bad_request(f"accountId is not valid: {account}")
        self._asked[connection, account] = (_names(arguments, "keys"), _names(arguments, "fields"))
        self._told[connection, account] = {}
        self._send(connection, account)
        self._plan()

    def unsubscribe(self, connection: Connection, account: str) -> None:
        self._asked.pop((connection, account), None)
        self._told.pop((connection, account), None)

    def drop_connection(self, connection: Connection) -> None:
        for one, account in list(self._asked):
            if one is connection:
                self.unsubscribe(one, account)

    def _tell(self) -> None:
        for connection, account in self._asked:
            self._send(connection, account)

    def _send(self, connection: Connection, account: str) -> None:
        found = figures(self._core, account)
        keys, wanted = self._asked[connection, account]
        told = self._told[connection, account]
        result = []
        for key, entry in self._entries(found).items():
            if keys and key not in keys:
                continue
            shown = {name: value for name, value in entry.items() if not wanted or name in wanted}
            blank = told.get(key) == shown
            told[key] = shown
            stamp = {"key": key, "timestamp": found.time_ns // NS_PER_S}
            result.append(stamp if blank else stamp | shown)
        connection.send({"result": result, "topic": f"{self.topic}+{account}"})


class LedgerStreams(_AccountStreams):
    """Topic ``sld``: spelt in camel case here, unlike the REST ledger."""

    topic = "sld"

    def _entries(self, found: Figures) -> dict[str, dict[str, Any]]:
        return {
            f"LedgerList{line.currency}": {
                "acctCode": found.account,
                "cashBalance": line.cash,
                "settledCash": line.settled_cash,
                "netLiquidationValue": line.net_liquidation,
                "stockMarketValue": line.stock_value,
                "realizedPnl": line.realized_pnl,
                "unrealizedPnl": line.unrealized_pnl,
                "exchangeRate": line.exchange_rate,
                "interest": 0.0,
                "secondKey": line.currency,
                "currency": line.currency,
                "severity": 0,
            }
            for line in found.ledger
        }


class SummaryStreams(_AccountStreams):
    """Topic ``ssd``."""

    topic = "ssd"

    def _entries(self, found: Figures) -> dict[str, dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = {
            key: {"value": word, "severity": 0} for key, word in summary.texts(found).items()
        }
        for key, value in summary.amounts(found).items():
            entries[key] = {"currency": found.currency, "monetaryValue": round(value, 2), "severity": 0}
        return entries


def _names(arguments: dict[str, Any], key: str) -> frozenset[str]:
    listed = arguments.get(key)
    return frozenset(map(str, listed)) if isinstance(listed, list) else frozenset()
