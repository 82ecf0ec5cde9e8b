"""Whether a process that has ended is started again, and when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.app.restarting import ASKED, HOPELESS, NO_WAY, Restart, RestartPolicy, Restarts
from bt_ibkr.errors import UsageError


def restarts(ours: bool = True, **policy: Any) -> Restarts:
    return Restarts(RestartPolicy(**policy), ours=ours)


@pytest.mark.parametrize(
    ("restart", "code", "again", "well"),
    [
        (Restart.NEVER, 0, False, True),
        (Restart.NEVER, 1, False, False),
        (Restart.ON_FAILURE, 0, False, True),
        (Restart.ON_FAILURE, 130, False, True),
        (Restart.ON_FAILURE, -15, False, True),
        (Restart.ON_FAILURE, 1, True, False),
        (Restart.ON_FAILURE, -9, True, False),
        (Restart.ALWAYS, 0, True, True),
        (Restart.ALWAYS, 1, True, False),
        (Restart.ALWAYS, 2, False, False),
    ],
)
def test_by_policy(restart: Restart, code: int, again: bool, well: bool) -> None:
    verdict = restarts(restart=restart).ended(code, 1.0)
    assert (verdict.again_s is not None, verdict.well) == (again, well)
    assert again or well or verdict.why


def test_what_would_end_the_same_is_not_tried_again_unless_it_is_no_command_of_ours() -> None:
    for code in HOPELESS:
        assert restarts(ours=True).ended(code, 1.0).again_s is None
        assert restarts(ours=False).ended(code, 1.0).again_s == 1.0


def test_waits_double_up_to_a_longest_and_it_is_given_up() -> None:
    one = restarts(backoff_s=1.0, backoff_longest_s=5.0, most_restarts=4)
    assert [one.ended(1, 0.1).again_s for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    verdict = one.ended(1, 0.1)
    assert verdict.again_s is None
    assert "4 times in a row" in verdict.why
    assert one.total == 4


def test_who_lived_long_begins_to_count_anew() -> None:
    one = restarts(most_restarts=2, stable_s=60.0)
    assert [one.ended(1, 1.0).again_s for _ in range(2)] == [1.0, 2.0]
    assert one.ended(1, 61.0).again_s == 1.0


def test_without_a_way_to_the_hub_it_is_never_given_up() -> None:
    one = restarts(most_restarts=1, backoff_longest_s=8.0)
    waits = [one.ended(NO_WAY, 15.0).again_s for _ in range(50)]
    assert waits[:5] == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert None not in waits


@given(
    st.lists(st.tuples(st.integers(-15, 143), st.floats(0, 200)), max_size=40),
    st.integers(1, 5),
    st.sampled_from(Restart),
)
def test_never_more_often_in_a_row_than_allowed(
    ends: list[tuple[int, float]], most: int, restart: Restart
) -> None:
    one = restarts(restart=restart, most_restarts=most, backoff_longest_s=30.0)
    row = 0
    for code, lived_s in ends:
        if lived_s >= 60.0:
            row = 0
        verdict = one.ended(code, lived_s)
        if verdict.again_s is None:
            assert verdict.well is (code in ASKED)
            break
        row += code != NO_WAY
        assert 0 < verdict.again_s <= 30.0
        assert row <= most
        assert restart is not Restart.NEVER


@pytest.mark.parametrize("wrong", [{"backoff_s": 0.0}, {"stable_s": float("nan")}, {"most_restarts": 0}])
def test_policies_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        RestartPolicy(**wrong)
