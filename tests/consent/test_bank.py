"""Numbers of firms, and when a breach has to be reported: pure rules of the information bank."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.breaches import ITEMS, JAPAN, MANY, TOLD, Ground, due, grounds, missing, overdue
from consent.recipients import is_corporate_number, is_lei

MOMENTS = st.datetimes(
    datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.sampled_from([UTC, JAPAN])
)
GROUNDS = st.sets(st.sampled_from(["special-care", "property", "wrongful", "many"]))


@pytest.mark.parametrize("number", ["7123456789012", "4011001098993", "2120901007402"])
def test_a_corporate_number_checks_itself(number: str) -> None:
    """Published examples: another first digit, or one digit wrong, is none (0 and 9 look alike)."""
    assert is_corporate_number(number)
    for at, digit in enumerate(number):
        for other in "0123456789":
            wrong = number[:at] + other + number[at + 1 :]
            alike = at > 0 and {digit, other} == {"0", "9"}
            assert is_corporate_number(wrong) == (other == digit or alike), wrong
    for bad in ("", number[:-1], number + "0", "７" + number[1:], number[:-1] + "x"):
        assert not is_corporate_number(bad)


def test_a_lei_checks_itself() -> None:
    assert is_lei("5493001KJTIIGC8Y1R12")
    for bad in ("5493001KJTIIGC8Y1R13", "5493001kjtiigc8y1r12", "5493001KJTIIGC8Y1R1", "é" * 20):
        assert not is_lei(bad)


@given(known_at=MOMENTS, why=GROUNDS.filter(bool))
def test_property_reports_are_due_within_the_days_of_the_law(
    known_at: datetime, why: set[Ground]
) -> None:
    """Never later than so many days after it became known, and at a midnight of Japan."""
    found = due(known_at, why)
    assert found is not None
    assert known_at < found.goal < found.preliminary < found.final
    for until, days in (
        (found.goal, 3),
        (found.preliminary, 5),
        (found.final, 60 if "wrongful" in why else 30),
    ):
        assert timedelta(days=days - 1) < until - known_at <= timedelta(days=days)
        assert until.astimezone(JAPAN).time() == datetime.min.time()


@given(known_at=MOMENTS, why=GROUNDS, later=st.timedeltas(timedelta(0), timedelta(days=90)))
def test_property_a_late_report_is_said_to_be_late(
    known_at: datetime, why: set[Ground], later: timedelta
) -> None:
    expected, now = due(known_at, why), known_at + later
    late = overdue(expected, (), now)
    if expected is None:
        assert (why, late) == (set(), [])
        return
    assert ("preliminary" in late) == (now >= expected.preliminary)
    assert ("final" in late) == (now >= expected.final)
    assert overdue(expected, {"preliminary"}, now) == [each for each in late if each == "final"]
    assert overdue(expected, {"final"}, now) == []


def test_more_than_a_thousand_persons_are_a_ground() -> None:
    assert grounds((), MANY) == []
    assert grounds((), MANY + 1) == ["many"]
    assert grounds(("property",), MANY + 1) == ["many", "property"]


def test_a_final_report_has_all_nine_items() -> None:
    assert len(ITEMS) == 9
    assert set(TOLD) < set(ITEMS)
    whole = dict.fromkeys(ITEMS, "x")
    assert missing(whole) == []
    for item in ITEMS:
        assert missing({**whole, item: ""}) == [item]
