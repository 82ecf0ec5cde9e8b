"""The error tree of the product.

::

    BtIbkrError
    ├── UsageError                 a wrong argument, setting or path                    exit 2
    │   ├── StrategyError          the named strategy cannot be loaded                  exit 3
    │   ├── MarketFileError        a market or bar file cannot be used                  exit 5
    │   └── NotArmedError          the account may not be traded in this mode           exit 2
    ├── ContractError              an instrument cannot be resolved                     exit 4
    │   ├── ContractNotFoundError
    │   └── AmbiguousContractError
    ├── WireError                  bytes from outside that are not what IBKR sends      exit 6
    ├── SessionError               the way to IBKR                                      exit 6
    │   ├── UnreachableError       nobody answers there
    │   ├── PortInUseError         the port to listen on is taken
    │   ├── TrustError             the server's certificate is not trusted              exit 7
    │   ├── AuthenticationError    reachable, but nobody is logged in                   exit 8
    │   │   └── CompetingError     another login of the same user holds the session     exit 8
    │   ├── RequestTimeoutError    the answer did not come: the outcome is unknown
    │   ├── PacingPenaltyError     429: too many requests
    │   └── ResponseError          an answer that is an error, with status and body
    ├── MarketDataError            market data could not be had                         exit 6
    │   ├── LinesError             all market-data lines are in use
    │   └── DepthError             the account's ladder shows another instrument
    ├── HistoryError               historical bars could not be had                     exit 6
    ├── ArchiveError               stored bars cannot be read or written                exit 12
    ├── OrderError
    │   ├── OrderRefusedError      refused before anything was sent, or by IBKR         exit 9
    │   │   ├── TradingHaltedError trading is halted, or only positions may be reduced  exit 9
    │   │   └── RiskRefusedError   a risk limit forbids it                              exit 9
    │   └── OutcomeUnknownError    sent, but the outcome is not known                   exit 9
    ├── JournalError               the journal of orders cannot be read or written      exit 11
    │   └── JournalLockedError     another process keeps it                             exit 11
    └── RunFailedError             a strategy raised                                    exit 1

Every error says what was asked, of whom, and (in ``remedy``) what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class BtIbkrError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        message: What was asked, of whom, and what went wrong.
        remedy: What the user can do about it; empty if nothing helps.
    """

    exit_code: ClassVar[int] = 1
    #: The same request may succeed if it is made again later, and making it again does no harm.
    retryable: ClassVar[bool] = False
    #: The session cannot go on after this.
    fatal: ClassVar[bool] = False

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip() if self.remedy else self.message


class UsageError(BtIbkrError):
    """A wrong argument, setting or path."""

    exit_code = 2


class StrategyError(UsageError):
    """The named strategy cannot be loaded."""

    exit_code = 3


class MarketFileError(UsageError):
    """A market or bar file is missing, unreadable or lacks columns."""

    exit_code = 5


class NotArmedError(UsageError):
    """The account is not of the mode's kind, or trading real money was not confirmed: no order left."""


class ContractError(BtIbkrError):
    """An instrument cannot be resolved."""

    exit_code = 4


class ContractNotFoundError(ContractError):
    """No instrument answers to the name."""


class AmbiguousContractError(ContractError):
    """Several instruments answer to the name; the message lists them."""


class WireError(BtIbkrError):
    """Bytes from outside that are not what IBKR sends there."""

    exit_code = 6


class SessionError(BtIbkrError):
    """The way to IBKR is broken or closed."""

    exit_code = 6


class UnreachableError(SessionError):
    """Nobody answers at the address: the request was certainly not received."""

    retryable = True


class PortInUseError(SessionError):
    """The port to listen on is taken."""


class TrustError(SessionError):
    """The server's certificate is not trusted."""

    exit_code = 7
    fatal = True


class AuthenticationError(SessionError):
    """The server answers, but there is no authenticated brokerage session."""

    exit_code = 8


class CompetingError(AuthenticationError):
    """Another login of the same user holds the brokerage session."""


class RequestTimeoutError(SessionError):
    """No answer in time, or the connection broke after the request left: the outcome is unknown."""


class PacingPenaltyError(SessionError):
    """HTTP 429: IBKR refuses requests from this user for a while."""


class ResponseError(SessionError):
    """An answer that is an error.

    Args:
        message: What was asked and what came back.
        status: HTTP status, also 200 where IBKR reports errors under it.
        body: The body's text, shortened.
    """

    def __init__(self, message: str, *, status: int, body: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.body = body


class MarketDataError(BtIbkrError):
    """Market data could not be had."""

    exit_code = 6


class LinesError(MarketDataError):
    """All market-data lines are in use; the message names what uses them."""


class DepthError(MarketDataError):
    """The account's one ladder shows another instrument."""


class HistoryError(BtIbkrError):
    """Historical bars could not be had."""

    exit_code = 6


class ArchiveError(BtIbkrError):
    """Stored historical bars cannot be read or written, or are not whole."""

    exit_code = 12


class OrderError(BtIbkrError):
    """Something about an order."""

    exit_code = 9


class OrderRefusedError(OrderError):
    """Refused: nothing stands at IBKR. ``margin`` is true if for lack of funds."""

    def __init__(self, message: str, *, margin: bool = False, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.margin = margin


class TradingHaltedError(OrderRefusedError):
    """Trading is halted, or only orders that protect a position may be sent."""


class RiskRefusedError(OrderRefusedError):
    """A risk limit forbids the order: nothing was sent, and nothing noted in the journal.

    Args:
        message: The order, the value and the limit.
        control: Name of the control that refused it.
        value: What the order has or would lead to, as text.
        limit: What it may not go beyond, as text.
        key: The order's key.
        remedy: What the user can do, and where the limit is set.
    """

    def __init__(
        self,
        message: str,
        *,
        control: str = "",
        value: str = "",
        limit: str = "",
        key: str = "",
        remedy: str = "",
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.control = control
        self.value = value
        self.limit = limit
        self.key = key


class OutcomeUnknownError(OrderError):
    """Sent, but whether it stands at IBKR is not known. It is never sent again on a guess."""


class JournalError(BtIbkrError):
    """The journal of orders cannot be read or written. Nothing is sent that is not in it."""

    exit_code = 11


class JournalLockedError(JournalError):
    """Another process keeps the journal. ``pid`` is that process, where it is known."""

    def __init__(self, message: str, *, pid: int | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.pid = pid


class RunFailedError(BtIbkrError):
    """A strategy raised; the traceback was shown."""
