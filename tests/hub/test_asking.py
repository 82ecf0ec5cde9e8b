"""Requests on their way to an answer: which are sent, which again, which wait, and that each ends once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bt_ibkr.errors import SessionError, WireError
from bt_ibkr.hub.asking import Asked, Asking
from bt_ibkr.hub.protocol import Told, body, problem_of


def ask(asking: Asking, *, first: bool = False) -> Asked:
    asked = Asked("status", body(None), int, first=first)
    asking.open(asked)
    return asked


def reply(to: int, value: Any = 7, problem: Any = None) -> Told:
    return Told(number=1, join="j", kind="reply", body=body(value), to=to, problem=problem)


def test_each_is_answered_by_its_number() -> None:
    asking = Asking()
    first, second = ask(asking), ask(asking)
    assert [asking.put(first), asking.put(second)] == [1, 2]
    asking.answered(reply(2))
    assert second.future.result(0) == 7
    assert not first.future.done()
    assert len(asking) == 1
    asking.answered(reply(1, problem=problem_of(SessionError("no"))))
    with pytest.raises(SessionError, match="no"):
        first.future.result(0)
    # Once more, or of none: nothing.
    asking.answered(reply(1))
    asking.answered(reply(99))
    assert len(asking) == 0


def test_who_asked_is_told_before_it_counts_as_answered() -> None:
    asking, counted = Asking(), []
    asked = ask(asking)
    asked.future.add_done_callback(lambda done: counted.append(len(asking)))
    asking.put(asked)
    asking.answered(reply(1))
    assert counted == [1]
    assert len(asking) == 0


def test_an_answer_that_cannot_be_read_is_a_failure() -> None:
    asking = Asking()
    asked = ask(asking)
    asking.put(asked)
    asking.answered(reply(1, "seven"))
    with pytest.raises(WireError):
        asked.future.result(0)


def test_it_is_sent_again_after_two_beats_that_miss_it() -> None:
    asking = Asking()
    for _ in range(3):
        asking.put(ask(asking))
    assert asking.again(1) == []
    assert asking.again(1) == [2, 3]
    assert asking.again(1) == []
    # The hub has them all: what was short before does not count.
    assert asking.again(3) == []
    asking.put(ask(asking))
    assert asking.again(3) == []
    # After a break the first beat is enough.
    asking.lost()
    assert asking.again(3) == [4]


def test_what_a_new_hub_is_brought_up_to_date_by_goes_first() -> None:
    asking = Asking()
    old, of_the_last_return = ask(asking), ask(asking, first=True)
    asking.put(old)
    asking.put(of_the_last_return)
    asking.hold_back()
    with pytest.raises(SessionError, match="once more"):
        of_the_last_return.future.result(0)
    meanwhile, bringing = ask(asking), ask(asking, first=True)
    assert asking.put(meanwhile) is None
    assert asking.put(bringing) == 1
    asking.answered(reply(1))
    assert asking.release() == [old, meanwhile]
    assert [asking.put(old), asking.put(meanwhile)] == [2, 3]
    assert asking.release() == []


def test_nobody_waits_for_what_was_given_up() -> None:
    asking = Asking()
    asked = ask(asking)
    asked.future.cancel()
    assert asking.put(asked) is None
    assert len(asking) == 0


def test_after_a_refusal_nothing_is_asked() -> None:
    asking = Asking()
    held, under_way, not_put = ask(asking), ask(asking), ask(asking)
    asking.put(under_way)
    asking.hold_back()
    asking.put(held)
    asking.refuse(SessionError("another version"))
    later = ask(asking)
    assert asking.put(later) is None
    assert asking.put(not_put) is None
    for one in (held, under_way, not_put, later):
        with pytest.raises(SessionError, match="another version"):
            one.future.result(0)
    assert len(asking) == 0


class Link(RuleBasedStateMachine):
    """A hub that loses, restarts and answers in any order: no request is forgotten, none ends twice."""

    def __init__(self) -> None:
        super().__init__()
        self.asking = Asking()
        self.all: list[Asked] = []
        self.ends: dict[int, int] = {}
        #: What the hub has of this joining, and has not answered.
        self.has = 0
        self.sent = 0
        self.unanswered: dict[int, Asked] = {}
        self.under_way: dict[int, Asked] = {}
        self.holding = False

    def send(self, number: int | None, asked: Asked, *, arrives: bool) -> None:
        if number is None:
            return
        self.under_way[number] = asked
        if arrives and number == self.has + 1:
            self.has = number
            self.unanswered[number] = asked

    @rule(arrives=st.booleans(), first=st.booleans())
    def ask(self, arrives: bool, first: bool) -> None:
        asked = ask(self.asking, first=first and self.holding)
        number = len(self.all)
        self.all.append(asked)
        asked.future.add_done_callback(lambda _: self.ends.update({number: self.ends.get(number, 0) + 1}))
        self.send(self.asking.put(asked), asked, arrives=arrives)

    @rule(arrives=st.booleans())
    def beat(self, arrives: bool) -> None:
        for number in self.asking.again(self.has):
            self.send(number, self.under_way[number], arrives=arrives)

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.unanswered)))
        asked = self.unanswered.pop(number)
        self.asking.answered(reply(number))
        assert asked.future.result(0) == 7

    @rule()
    def another_hub(self) -> None:
        self.asking.hold_back()
        self.holding = True
        self.has, self.unanswered, self.under_way = 0, {}, {}

    @precondition(lambda self: self.holding)
    @rule(arrives=st.booleans())
    def up_to_date(self, arrives: bool) -> None:
        self.holding = False
        for asked in self.asking.release():
            self.send(self.asking.put(asked), asked, arrives=arrives)

    @invariant()
    def each_ends_once(self) -> None:
        assert all(count == 1 for count in self.ends.values())
        assert len(self.asking) == sum(not asked.future.done() for asked in self.all)

    def teardown(self) -> None:
        """At rest: the hub is up to date, hears everything and answers it."""
        if self.holding:
            self.up_to_date(arrives=True)
        for _ in range(2 * len(self.all) + 2):
            self.beat(arrives=True)
        for number in sorted(self.unanswered):
            self.asking.answered(reply(number))
        assert all(asked.future.done() for asked in self.all)
        assert len(self.asking) == 0


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
