"""The policy on questions: by message id, safe where nothing is said."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.errors import UsageError
from bt_ibkr.services.questions import (
    ACCEPTED,
    DECLINED,
    OrderQuestion,
    QuestionPolicy,
    each,
    plain,
    policy_from,
    read_policy,
)
from bt_ibkr.wire.order_answers import Prompt, Question, submission


def question(*ids: str, text: str = "Are you sure?") -> Question:
    return Question(reply_id="r", texts=(text,), message_ids=ids, options=("Yes", "No"))


def prompt(*options: str, message_id: str | None = "p12") -> Prompt:
    return Prompt(order_id="7", request_id="22170", text="Use it?", options=options, message_id=message_id)


P12 = ("Use on this order", "Always use", "Do not use")


@pytest.mark.parametrize("one", ACCEPTED)
async def test_precautions_are_passed(one: str) -> None:
    asked = prompt(*P12) if one.startswith("p") else question(one)
    assert (await QuestionPolicy().decide(asked)).accept


@pytest.mark.parametrize("one", [*DECLINED, "o1", "o99999"])
async def test_what_changes_the_order_or_is_unknown_is_declined(one: str) -> None:
    decision = await QuestionPolicy().decide(question("o163", one))
    assert not decision.accept
    assert one in decision.reason
    assert "o163" not in decision.reason


async def test_a_question_without_an_id_is_declined() -> None:
    assert not (await QuestionPolicy().decide(question())).accept
    assert not (await QuestionPolicy().decide(prompt("Yes", "No", message_id=None))).accept


async def test_decline_goes_before_accept() -> None:
    policy = QuestionPolicy(decline=frozenset({"o163"}))
    assert "declines o163" in (await policy.decide(question("o354", "o163"))).reason
    assert (await policy.decide(question("o354"))).accept
    assert not policy.accepts(["o163"])


async def test_the_function_is_asked_and_sees_what_a_person_would() -> None:
    seen: list[OrderQuestion] = []

    def callback(shown: OrderQuestion) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        seen.append(shown)
        return len(seen) == 1

    policy = QuestionPolicy(ask=frozenset({"o163", "*"}), callback=callback)
    assert (await policy.decide(question("o163", text="Price <b>exceeds</b><br/>3%."))).accept
    assert not (await policy.decide(question("o4711"))).accept
    assert (await policy.decide(question("o354"))).accept  # accepted without asking
    assert [one.text for one in seen] == ["Price exceeds 3%.", "Are you sure?"]
    assert seen[0].message_ids == ("o163",)


async def test_asking_never_overrules_a_decline_or_an_unknown_beside_it() -> None:
    policy = QuestionPolicy(
        ask=frozenset({"o163"}), decline=frozenset({"o354"}), callback=lambda _shown: pytest.fail("asked")
    )
    assert not (await policy.decide(question("o163", "o354"))).accept
    assert not (await policy.decide(question("o163", "o4711"))).accept


@pytest.mark.parametrize("answer", [1, "yes", None, [True]])
async def test_only_true_is_a_yes(answer: Any) -> None:
    policy = QuestionPolicy(ask=frozenset({"*"}), callback=lambda _shown: answer)
    decision = await policy.decide(question("o4711"))
    assert not decision.accept
    assert "not True or False" in decision.reason


@pytest.mark.parametrize("problem", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
async def test_a_function_that_raises_says_no(
    problem: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def callback(_shown: OrderQuestion) -> bool:
        raise problem

    decision = await QuestionPolicy(ask=frozenset({"*"}), callback=callback).decide(question("o4711"))
    assert not decision.accept
    assert "raised" in decision.reason
    assert "order-question-callback-failed" in caplog.text


async def test_a_function_that_takes_too_long_says_no() -> None:
    go_on = threading.Event()
    policy = QuestionPolicy(ask=frozenset({"*"}), callback=lambda _shown: go_on.wait(30), ask_timeout_s=0.05)
    decision = await policy.decide(question("o4711"))
    go_on.set()
    assert not decision.accept
    assert "within 0.05 s" in decision.reason


async def test_the_loop_goes_on_while_somebody_is_asked() -> None:
    go_on = threading.Event()
    policy = QuestionPolicy(ask=frozenset({"*"}), callback=lambda _shown: go_on.wait(30))
    waiting = asyncio.ensure_future(policy.decide(question("o4711")))
    await asyncio.sleep(0)
    go_on.set()
    assert (await waiting).accept


@pytest.mark.parametrize(
    ("options", "accepted", "declined"),
    [
        (P12, "Use on this order", "Do not use"),
        (("Always use", "Use on this order", "Never ask", "Do not use"), "Use on this order", "Do not use"),
        (("Yes", "No"), "Yes", "No"),
        (("Always use", "Do not use"), None, "Do not use"),
        (("Proceed",), "Proceed", None),
        (("Decline", "Accept and Continue"), "Accept and Continue", "Decline"),
        ((), None, None),
    ],
)
async def test_a_prompt_is_answered_for_this_order_alone(
    options: tuple[str, ...], accepted: str | None, declined: str | None
) -> None:
    yes = await QuestionPolicy().decide(prompt(*options))
    assert (yes.option, yes.accept) == (accepted, accepted is not None)
    no = await QuestionPolicy(decline=frozenset({"p12"})).decide(prompt(*options))
    assert (no.option, no.accept) == (declined, False)


async def test_the_option_of_a_prompt_can_be_said() -> None:
    policy = QuestionPolicy(options={"p12": "always use"})
    assert (await policy.decide(prompt(*P12))).option == "Always use"
    gone = await policy.decide(prompt("Use on this order", "Do not use"))
    assert (gone.option, gone.accept) == (None, False)
    assert "none of the options" in gone.reason


def test_several_questions_of_one_answer() -> None:
    answer = submission(
        [
            {"id": "a", "message": ["A"], "messageIds": ["o163"]},
            {"id": "b", "message": ["B"], "messageIds": ["o354"]},
            {"orderId": 7, "reqId": "9", "text": "Use it?", "options": list(P12), "messageId": "p12"},
            {"order_id": "17", "order_status": "Submitted"},
        ]
    )
    assert isinstance(answer, Question)
    assert [one.reply_id for one in each(answer)] == ["a", "b"]
    assert all(not one.others for one in each(answer))
    assert [one.request_id for one in answer.prompts] == ["9"]
    assert [one.order_id for one in answer.acks] == ["17"]


def test_several_prompts_of_one_answer() -> None:
    row = {"orderId": 7, "reqId": "9", "text": "Use it?", "options": list(P12), "messageId": "p12"}
    answer = submission([row, row | {"reqId": "10"}, {"order_id": "17", "order_status": "Submitted"}])
    assert isinstance(answer, Prompt)
    assert [answer.request_id, *(one.request_id for one in answer.others)] == ["9", "10"]
    assert [one.order_id for one in answer.acks] == ["17"]
    assert plain(answer).is_prompt


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"accept": {"163"}}, "'163' in accept"),
        ({"accept": {"*"}}, "'\\*' in accept"),
        ({"ask": {"o163"}}, "no function is given"),
        ({"suppress": {"o9"}}, "suppressed but not accepted"),
        ({"suppress": {"o163"}, "decline": {"o163"}}, "suppressed but not accepted"),
        ({"options": {"twelve": "x"}}, "'twelve' in options"),
        ({"ask_timeout_s": 0}, "ask_timeout_s"),
        ({"most_questions": 0}, "most_questions"),
        ({"accept": {f"o{n}" for n in range(60)}, "suppress": {f"o{n}" for n in range(52)}}, "IBKR takes 51"),
    ],
)
def test_what_is_no_policy(given: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        QuestionPolicy(**given)


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "bt-ibkr.toml"
    file.write_text(
        '[questions]\naccept = ["o2137"]\ndecline = ["o354"]\nsuppress = ["o163"]\n'
        'options = { p12 = "Do not use" }\nask_timeout_s = 2\n'
    )
    policy = read_policy(file)
    assert policy.accept == frozenset(ACCEPTED) | {"o2137"}
    assert (policy.decline, policy.suppress) == (frozenset({"o354"}), frozenset({"o163"}))
    assert policy.ask_timeout_s == 2.0
    assert policy.options == {"p12": "Do not use"}
    file.write_text("[questions]\ndefaults = false\n")
    assert read_policy(file).accept == frozenset()
    file.write_text("")
    assert read_policy(file) == QuestionPolicy()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[questions]\nacept = []", "questions.acept = \\[\\].*Did you mean accept"),
        ("[questions]\naccept = 5", "questions: Expected `array`"),
        ('[questions]\naccept = ["x"]', "'x' in accept"),
        ('[questions]\nask = ["o1"]', "no function"),
        ("questions = 3", "no table"),
        ("[questions", "is not TOML"),
    ],
)
def test_a_file_that_is_wrong(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=why) as caught:
        read_policy(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")
    assert policy_from({}, source="here") == QuestionPolicy()


ids = st.sampled_from([*ACCEPTED, *DECLINED, "o1", "o2", "x", ""])


@settings(max_examples=60)
@given(st.lists(ids, max_size=4), st.frozensets(st.sampled_from(["o1", "o163", "p6"])), st.text(max_size=20))
def test_yes_needs_every_id_accepted_and_none_declined(
    message_ids: list[str], declined: frozenset[str], text: str
) -> None:
    policy = QuestionPolicy(decline=declined)
    decision = asyncio.run(policy.decide(question(*message_ids, text=text)))
    named = set(message_ids)
    assert decision.accept == (bool(named) and named <= ACCEPTED.keys() and not named & declined)
    assert decision.accept == policy.accepts(message_ids)
    assert decision.reason
