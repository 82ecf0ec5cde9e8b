"""Messages of the hub: whole after the way there and back; errors too."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

from bt_ibkr import errors
from bt_ibkr.errors import (
    BtIbkrError,
    JournalLockedError,
    NotArmedError,
    OrderRefusedError,
    OutcomeUnknownError,
    ResponseError,
    RiskRefusedError,
    SessionError,
    TradingHaltedError,
    WireError,
)
from bt_ibkr.hub.protocol import (
    Beat,
    Closing,
    Hello,
    HubBeat,
    Leave,
    Problem,
    Refused,
    Request,
    Told,
    Unknown,
    Welcome,
    body,
    encode,
    error_of,
    from_hub,
    from_strategy,
    greeting,
    problem_of,
    read,
)

HELLO = Hello(protocol=1, version="1", name="alpha", session="s", told=4)


@pytest.mark.parametrize(
    "message",
    [
        HELLO,
        Request(session="s", join="j", number=3, kind="status", body=body(None), asked_s=12.5),
        Beat(session="s", join="j", told=2, behind={b"\x00\xff": 3}, waiting=1),
        Leave(session="s"),
    ],
)
def test_a_strategy_s_messages(message: object) -> None:
    assert from_strategy(encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Welcome(
            hub="h", version="1", session="s", join="j", ticks="ipc:///x", accounts=("DU1",), paper=None,
            may_trade=True, clock_s=1.0, beat_s=1.0, dead_s=5.0,
        ),
        Refused(session="s", problem=problem_of(NotArmedError("no"))),
        Unknown(hub="h", session="s"),
        Told(number=1, join="j", kind="reply", body=body({"a": 1}), to=4),
        HubBeat(join="j", clock_s=2.0, told=1, asked=2, heads={b"abc": 1}),
        Closing(hub="h", reason="because"),
    ],
)  # fmt: skip
def test_the_hub_s_messages(message: object) -> None:
    assert from_hub(encode(message)) == message


def test_no_message_is_taken_from_the_wrong_side() -> None:
    with pytest.raises(WireError):
        from_strategy(encode(Unknown(hub="h", session="s")))
    with pytest.raises(WireError):
        from_hub(encode(HELLO))


def test_a_hello_of_any_version_tells_who_it_is() -> None:
    later = {
        "type": "hello",
        "protocol": 9,
        "version": "9.1",
        "name": "alpha",
        "session": "s",
        "told": {},
        "x": 1,
    }
    raw = msgspec.msgpack.encode(later)
    with pytest.raises(WireError):
        from_strategy(raw)
    told = greeting(raw)
    assert (told.protocol, told.version, told.name, told.session) == (9, "9.1", "alpha", "s")


@pytest.mark.parametrize(
    "error",
    [
        OrderRefusedError("too much", remedy="less"),
        OutcomeUnknownError("who knows"),
        NotArmedError("no", remedy="arm it"),
        JournalLockedError("locked", pid=12),
        ResponseError("no", status=503, body="busy"),
        RiskRefusedError("too large", control="max_order_size", value="9", limit="5", key="k", remedy="less"),
        TradingHaltedError("halted", margin=True),
    ],
)
def test_errors_arrive_as_what_they_were(error: BtIbkrError) -> None:
    there = read(body(problem_of(error)), type(problem_of(error)))
    back = error_of(there)
    assert type(back) is type(error)
    # With all that it has by its class: a strategy's broker looks at it.
    assert vars(back) == vars(error)


def test_every_error_arrives_with_what_its_class_has() -> None:
    kinds = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BtIbkrError)
    ]
    assert RiskRefusedError in kinds
    for kind in kinds:
        words = inspect.signature(kind).parameters.values()
        values: dict[str, Any] = {"int": 7, "int | None": 7, "str": "x", "bool": True}
        error = kind(**{each.name: values[str(each.annotation)] for each in words})
        back = error_of(read(body(problem_of(error)), Problem))
        assert type(back) is kind
        assert vars(back) == vars(error)


def test_an_error_that_cannot_be_made_of_what_was_sent_is_its_base() -> None:
    """A hub of another version may send less."""
    problem = msgspec.structs.replace(problem_of(ResponseError("no", status=503, body="")), details={})
    assert type(error_of(problem)) is SessionError


def test_an_error_of_a_later_version_is_one_all_the_same() -> None:
    problem = msgspec.structs.replace(problem_of(NotArmedError("no")), kind="NewError")
    assert type(error_of(problem)) is BtIbkrError
    # Nor is anything else of that module made.
    assert type(error_of(msgspec.structs.replace(problem, kind="msgspec"))) is BtIbkrError
