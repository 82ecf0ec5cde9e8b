"""Who may move the kill switch where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import UsageError
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import Actor, Who, may_lift, moved
from bt_ibkr.risk.switch import PERSONS, SEVERITY

PERSON = Actor(Who.COMMAND_LINE)
ONE, TWO = Actor(Who.STRATEGY, "one"), Actor(Who.STRATEGY, "two")
LOSS = Actor(Who.RISK, "daily_loss_limit")
ACTORS = (PERSON, Actor(Who.HUB), Actor(Who.SIGNAL), Actor(Who.DESK), LOSS, ONE, TWO)
ACTIVE, REDUCING, HALTED = Trading.ACTIVE, Trading.REDUCING, Trading.HALTED


def move(state: TradingState, to: Trading, by: Actor, now_ns: int = 7) -> TradingState:
    return moved(state, to, by=by, reason=f"{by} says so", now_ns=now_ns)


def test_every_mode_has_its_place() -> None:
    assert sorted(SEVERITY, key=SEVERITY.__getitem__) == list(Trading)


@pytest.mark.parametrize("actor", ACTORS, ids=str)
def test_anybody_restricts(actor: Actor) -> None:
    for to in (REDUCING, HALTED):
        state = move(TradingState(), to, actor)
        assert (state.mode, state.by, state.since_ns) == (to, str(actor), 7)
        assert state.reason == f"{actor} says so"
    assert move(move(TradingState(), REDUCING, PERSON), HALTED, actor).mode is HALTED


@pytest.mark.parametrize("by", ACTORS, ids=str)
@pytest.mark.parametrize("actor", ACTORS, ids=str)
@pytest.mark.parametrize(("mode", "to"), [(REDUCING, ACTIVE), (HALTED, REDUCING), (HALTED, ACTIVE)])
def test_who_lifts(by: Actor, actor: Actor, mode: Trading, to: Trading) -> None:
    state = move(TradingState(), mode, by)
    if actor.who in PERSONS or (actor == by and actor.who is Who.STRATEGY):
        assert move(state, to, actor) == TradingState(
            mode=to, reason=f"{actor} says so", by=str(actor), since_ns=7
        )
        return
    with pytest.raises(UsageError) as caught:
        move(state, to, actor)
    assert str(by) in caught.value.message
    assert mode.value in caught.value.message
    assert "bt-ibkr resume" in caught.value.remedy


def test_what_two_imposed_is_not_lifted_by_one() -> None:
    for second in (PERSON, LOSS, TWO):
        state = move(move(TradingState(), HALTED, ONE, 1), HALTED, second, 2)
        # What happened first stays told.
        assert (state.by, state.since_ns, state.reason) == (f"{ONE} and {second}", 1, f"{ONE} says so")
        assert not may_lift(state, ONE)
        assert may_lift(state, PERSON)
    state = move(move(TradingState(), REDUCING, PERSON), HALTED, ONE)
    with pytest.raises(UsageError):
        move(state, ACTIVE, ONE)


def test_the_same_word_twice_changes_nothing() -> None:
    state = move(TradingState(), HALTED, ONE)
    assert move(state, HALTED, ONE) is state
    assert move(TradingState(), ACTIVE, ONE) == TradingState()


def test_a_state_of_an_unknown_hand_is_left_to_a_person() -> None:
    unknown = TradingState(mode=HALTED)
    assert not may_lift(unknown, ONE)
    assert not may_lift(move(unknown, HALTED, ONE), ONE)
    with pytest.raises(UsageError, match="an unknown hand"):
        move(unknown, ACTIVE, ONE)
    assert move(unknown, ACTIVE, PERSON).mode is ACTIVE


def test_a_moment_is_told() -> None:
    state = move(TradingState(), HALTED, LOSS, 1_800_000_000 * NS_PER_S)
    with pytest.raises(UsageError, match="2027-01-15 08:00:00 UTC"):
        move(state, ACTIVE, ONE)


@given(st.lists(st.tuples(st.sampled_from(ACTORS), st.sampled_from(list(Trading))), max_size=12))
def test_no_strategy_ever_lifts_what_others_imposed(moves: list[tuple[Actor, Trading]]) -> None:
    state = TradingState()
    hands: set[Actor] = set()
    for actor, to in moves:
        before = state
        try:
            state = move(state, to, actor)
        except UsageError:
            assert SEVERITY[to] < SEVERITY[before.mode]
            assert actor.who not in PERSONS
            continue
        if SEVERITY[to] < SEVERITY[before.mode]:
            assert actor.who in PERSONS or hands == {actor}
            hands = {actor}
        elif to is not ACTIVE:
            hands = {actor} if before.mode is ACTIVE else hands | {actor}
        assert SEVERITY[state.mode] == SEVERITY[to]
