"""The state machine: whatever happens, in whatever order, only transitions of the table are published."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.clock import ManualClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import (
    AuthenticationError,
    BtIbkrError,
    CompetingError,
    PacingPenaltyError,
    RequestTimeoutError,
    ResponseError,
    SessionError,
    TrustError,
    UnreachableError,
    UsageError,
    WireError,
)
from bt_ibkr.session.session import Session
from bt_ibkr.session.states import ALLOWED, CONNECTED, WAY_UP, SessionEvent, SessionState, check

S = SessionState
#: Monday noon, and Saturday evening, in New York.
NOON_NS, SATURDAY_NS = 1_773_072_000_000_000_000, 1_772_931_600_000_000_000
PROBLEMS: dict[str, BtIbkrError] = {
    "unreachable": UnreachableError("nobody answers"),
    "timeout": RequestTimeoutError("no answer"),
    "page": ResponseError("HTTP 503", status=503, body=""),
    "wire": WireError("HTML"),
    "session": SessionError("something else"),
    "trust": TrustError("the certificate", remedy="name it"),
    "login": AuthenticationError("nobody is logged in", remedy="log in"),
    "competing": CompetingError("another login"),
    "penalty": PacingPenaltyError("429", remedy="wait"),
    "key": UsageError("the key is gone", remedy="put it back"),
}
#: How far an attempt comes before it fails.
STAGES = ("nothing", "gateway", "outer", "brokerage")


class Machine:
    """A session without a network: what its steps call is called in the order in which they call it."""

    def __init__(self, now_ns: int) -> None:
        self.events: list[SessionEvent] = []
        self.session = Session(
            SessionSettings(),
            clock=ManualClock(now_ns),
            on_frame=lambda frame: None,
            on_state=self.events.append,
        )
        self.session.socket = _NoSocket()  # type: ignore[assignment]

    def climb(self, stage: str) -> None:
        reached = STAGES.index(stage)
        if reached >= 1:
            self.session._move(S.GATEWAY_UP, "somebody answers")
        if reached >= 2:
            self.session._reached("outer")
        if reached >= 3:
            self.session._reached("brokerage")

    def up(self) -> None:
        """A whole attempt that works; nothing happens while the stream goes on."""
        if not self.session._streams:
            self.climb("brokerage")
            self.session._move(S.STREAMING, "the WebSocket is ready")

    def fail(self, stage: str, problem: str) -> None:
        """An attempt that fails; attempts are made only where nothing streams."""
        if not self.session._streams:
            self.climb(stage)
            self.session._classify(PROBLEMS[problem])

    def lose(self) -> None:
        if self.session._streams:
            self.session._fall_after("closed with code 1006")

    def punish(self) -> None:
        """A 429 for a request while the stream goes on."""
        if self.session.state is S.STREAMING:
            self.session._move(S.PENALTY, "IBKR answered HTTP 429")

    def forgive(self) -> None:
        self.session._on_penalty_over()

    def repair(self) -> None:
        """A request in between has the session opened again; it may end after the stream broke."""
        self.session._reached("outer")
        self.session._reached("brokerage")


class _NoSocket:
    silent_since_ns = 0


STEPS = st.one_of(
    st.just(Machine.up),
    st.tuples(st.sampled_from(STAGES), st.sampled_from(sorted(PROBLEMS))).map(
        lambda given: lambda machine: machine.fail(*given)
    ),
    st.just(Machine.lose),
    st.just(Machine.punish),
    st.just(Machine.forgive),
    st.just(Machine.repair),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=40), st.booleans())
def test_no_history_breaks_the_table(steps: list[Callable[[Machine], None]], saturday: bool) -> None:
    machine = Machine(SATURDAY_NS if saturday else NOON_NS)
    for step in steps:
        step(machine)
    previous, streamed = S.DISCONNECTED, False
    for event in machine.events:
        assert event.previous is previous
        assert event.state in ALLOWED[previous]
        assert event.cause
        # Nobody is told that it streams where it does not.
        assert event.streams is (event.state is S.STREAMING or (event.state is S.PENALTY and streamed))
        assert (event.since_ns > 0) is (streamed and not event.streams)
        if event.state in (S.COMPETING, S.NEEDS_PERSON, S.MAINTENANCE, S.DISCONNECTED):
            assert event.next_step
        previous, streamed = event.state, event.streams
    # From wherever it ended there is a way up again.
    machine.up()
    assert machine.session._streams


@pytest.mark.parametrize(("previous", "state"), list(itertools.product(S, S)))
def test_refusals(previous: SessionState, state: SessionState) -> None:
    if state in ALLOWED[previous]:
        check(previous, state, "test")
    else:
        with pytest.raises(SessionError, match=f"from {previous.value} to {state.value}"):
            check(previous, state, "test")


def test_table() -> None:
    assert set(ALLOWED) == set(S)
    assert all(state not in following for state, following in ALLOWED.items())
    assert all(later in ALLOWED[earlier] for earlier, later in itertools.pairwise(WAY_UP))
    # Nothing streams that was not streaming or brought up to it.
    into = {state for state, following in ALLOWED.items() if S.STREAMING in following}
    assert into == {S.BROKERAGE, S.PENALTY}
    assert S.DISCONNECTED not in CONNECTED
    # No state is a trap.
    assert all(following & {S.GATEWAY_UP, S.DISCONNECTED} for following in ALLOWED.values())
