"""The error tree: what each says, and what the command line ends with."""

from __future__ import annotations

import inspect
import pickle

import pytest

from bt_ibkr import errors
from bt_ibkr.errors import (
    AmbiguousContractError,
    ArchiveError,
    AuthenticationError,
    BtIbkrError,
    CompetingError,
    ContractError,
    ContractNotFoundError,
    DepthError,
    HistoryError,
    JournalError,
    JournalLockedError,
    LinesError,
    MarketDataError,
    MarketFileError,
    NotArmedError,
    OrderError,
    OrderRefusedError,
    OutcomeUnknownError,
    PacingPenaltyError,
    PortInUseError,
    RequestTimeoutError,
    ResponseError,
    RiskRefusedError,
    RunFailedError,
    SessionError,
    StrategyError,
    TradingHaltedError,
    TrustError,
    UnreachableError,
    UsageError,
    WireError,
)

EXIT_CODES = {
    RunFailedError: 1, UsageError: 2, NotArmedError: 2, StrategyError: 3, ContractError: 4,
    ContractNotFoundError: 4, AmbiguousContractError: 4, MarketFileError: 5, WireError: 6, SessionError: 6,
    UnreachableError: 6, PortInUseError: 6, RequestTimeoutError: 6, PacingPenaltyError: 6, ResponseError: 6,
    HistoryError: 6,
    ArchiveError: 12,
    MarketDataError: 6,
    LinesError: 6,
    DepthError: 6, TrustError: 7, AuthenticationError: 8, CompetingError: 8, OrderError: 9, OrderRefusedError: 9,
    OutcomeUnknownError: 9, TradingHaltedError: 9, RiskRefusedError: 9, JournalError: 11, JournalLockedError: 11,
}  # fmt: skip
ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BtIbkrError) and kind is not BtIbkrError
]


def make(kind: type[BtIbkrError]) -> BtIbkrError:
    if issubclass(kind, ResponseError):
        return kind("What went wrong.", status=500, body="text", remedy="Do this.")
    return kind("What went wrong.", remedy="Do this.")


def test_every_error_has_its_exit_code() -> None:
    assert {kind: kind.exit_code for kind in ALL} == EXIT_CODES


def test_every_error_is_in_the_picture() -> None:
    """The tree at the top of the module names them all, each with its exit code where the line has one."""
    picture = errors.__doc__ or ""
    missing = [kind.__name__ for kind in ALL if kind.__name__ not in picture]
    assert missing == []
    for line in picture.splitlines():
        words = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()
        if words and words[-1].isdigit() and words[-2] == "exit":
            assert getattr(errors, words[0]).exit_code == int(words[-1])


@pytest.mark.parametrize("kind", ALL)
def test_message_and_remedy(kind: type[BtIbkrError]) -> None:
    error = make(kind)
    assert str(error) == "What went wrong. Do this."
    assert (error.message, error.remedy) == ("What went wrong.", "Do this.")
    assert isinstance(error, BtIbkrError)
    assert not (error.fatal and error.retryable)


def test_without_a_remedy() -> None:
    assert str(WireError("Only this.")) == "Only this."
    assert WireError("Only this.").remedy == ""


def test_only_what_was_certainly_not_received_may_be_repeated() -> None:
    assert {kind for kind in ALL if kind.retryable} == {UnreachableError}
    assert {kind for kind in ALL if kind.fatal} == {TrustError}
    assert not issubclass(RequestTimeoutError, UnreachableError)
    assert not issubclass(OutcomeUnknownError, OrderRefusedError)


def test_extras() -> None:
    answer = ResponseError("x", status=503, body="busy")
    assert (answer.status, answer.body) == (503, "busy")
    assert OrderRefusedError("x", margin=True).margin
    assert not OrderRefusedError("x").margin
    refusal = RiskRefusedError("x", control="tick", value="1.001", limit="0.01", key="a.00000.1")
    assert (refusal.control, refusal.value, refusal.limit, refusal.key) == (
        "tick",
        "1.001",
        "0.01",
        "a.00000.1",
    )
    assert isinstance(refusal, OrderRefusedError)
    assert JournalLockedError("x", pid=42).pid == 42
    assert JournalLockedError("x").pid is None


@pytest.mark.parametrize("kind", [BtIbkrError, UsageError, OutcomeUnknownError, RiskRefusedError])
def test_it_survives_another_process(kind: type[BtIbkrError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("What went wrong.", remedy="Do this.")))
    assert type(copy) is kind
    assert (copy.message, copy.remedy) == ("What went wrong.", "Do this.")
