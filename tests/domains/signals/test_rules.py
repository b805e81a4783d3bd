"""The current state of signals: hour rollover, silence, skew, backlog, history."""

from datetime import UTC, datetime, timedelta

import pytest

from domains.signals.rules import GroupState, LatestRow, current_state

NOW = datetime(2026, 6, 1, 13, 0, 0, 400_000, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HEARD = NOW - SECOND / 2
GREEN = "protected-Movement-Allowed"


def rows(
    skew: timedelta = SECOND / 10,
    since: timedelta = -20 * SECOND,
    ends: tuple[timedelta, timedelta] = (7 * SECOND, 30 * SECOND),
) -> list[LatestRow]:
    """Group 2 turned green `since` HEARD, by a gateway whose clock is `skew` behind ours."""
    at = HEARD + since
    told = at - skew

    def row(name: str, result: str | float) -> LatestRow:
        return LatestRow(name, told, at, result)

    return [
        row("signal-state/2", GREEN),
        row("minimum-end/2", (HEARD + ends[0] - skew).timestamp()),
        row("maximum-end/2", (HEARD + ends[1] - skew).timestamp()),
    ]


def group(state: object) -> GroupState:
    (only,) = state.groups  # type: ignore[attr-defined]
    assert isinstance(only, GroupState)
    return only


def near(left: datetime | None, right: datetime) -> bool:
    return left is not None and abs(left - right) < timedelta(milliseconds=1)


def test_current_over_the_hour() -> None:
    """Ends lie in the next hour, the state began in the last one: all absolute."""
    skew = SECOND / 10
    state = current_state(rows(), HEARD, HEARD - skew, NOW)
    assert state.valid_until == HEARD + 2 * SECOND
    shown = group(state)
    assert shown.state == GREEN
    assert near(shown.since, HEARD - 20 * SECOND - skew)
    assert near(shown.minimum_end_time, HEARD + 7 * SECOND - skew)
    assert near(shown.maximum_end_time, HEARD + 30 * SECOND - skew)
    assert shown.valid_until == state.valid_until


def test_a_state_is_not_valid_past_its_earliest_end() -> None:
    state = current_state(rows(ends=(SECOND, SECOND)), HEARD, HEARD - SECOND / 10, NOW)
    assert near(group(state).valid_until, HEARD + SECOND * 9 / 10)
    # An end that has passed promises nothing: a green that rests is valid while it is heard.
    state = current_state(rows(ends=(-SECOND, -SECOND)), HEARD, HEARD - SECOND / 10, NOW)
    assert group(state).valid_until == state.valid_until


@pytest.mark.parametrize("silence", [2.0, 2.5, 3600.0])
def test_unknown_after_two_seconds_of_silence(silence: float) -> None:
    now = HEARD + timedelta(seconds=silence)
    state = current_state(rows(), HEARD, HEARD - SECOND / 10, now)
    assert state.valid_until is None
    assert group(state) == GroupState(2)
    before = current_state(rows(), HEARD, HEARD, HEARD + timedelta(seconds=1.999))
    assert group(before).state == GREEN


def test_never_heard_is_unknown() -> None:
    state = current_state(rows(), None, None, NOW)
    assert (state.valid_until, state.clock_skew_seconds) == (None, None)
    assert group(state) == GroupState(2)


@pytest.mark.parametrize("skew_seconds", [-599, -300, -3, 3, 300, 599])
def test_a_skewed_clock_is_corrected(skew_seconds: int) -> None:
    skew = timedelta(seconds=skew_seconds)
    state = current_state(rows(skew), HEARD, HEARD - skew, NOW)
    assert state.clock_skew_seconds == skew_seconds
    shown = group(state)
    assert shown.state == GREEN
    assert near(shown.since, HEARD - 20 * SECOND)
    assert near(shown.minimum_end_time, HEARD + 7 * SECOND)
    assert near(shown.maximum_end_time, HEARD + 30 * SECOND)


@pytest.mark.parametrize("skew_seconds", [-86_400, -601, 601, 86_400 * 900])
def test_history_is_never_current(skew_seconds: int) -> None:
    skew = timedelta(seconds=skew_seconds)
    state = current_state(rows(skew), HEARD, HEARD - skew, NOW)
    assert state.valid_until is None
    assert group(state) == GroupState(2)


def test_a_backlog_is_not_a_slow_clock() -> None:
    """Frames of 5 min ago after an outage: a state from before it shows that the clock is right."""
    late = timedelta(minutes=5)
    state = current_state(rows(since=-late - 60 * SECOND), HEARD, HEARD - late, NOW)
    assert group(state).state == "unknown"


def test_a_backlog_that_catches_up_is_not_a_slow_clock() -> None:
    """All states are the backlog's: received within a second, minutes apart by their own times."""
    told = HEARD - timedelta(minutes=8)
    caught_up = [
        LatestRow("signal-state/1", told, HEARD - SECOND, GREEN),
        LatestRow("signal-state/2", told + 90 * SECOND, HEARD, GREEN),
    ]
    state = current_state(caught_up, HEARD, told + 90 * SECOND, NOW)
    assert {shown.state for shown in state.groups} == {"unknown"}
    # The same states of a clock that keeps its distance are current.
    steady = [
        LatestRow("signal-state/1", told, HEARD - 90 * SECOND, GREEN),
        LatestRow("signal-state/2", told + 90 * SECOND, HEARD, GREEN),
    ]
    state = current_state(steady, HEARD, told + 90 * SECOND, NOW)
    assert {shown.state for shown in state.groups} == {GREEN}


def test_after_a_backlog_the_present_is_current() -> None:
    late = timedelta(minutes=5)
    state = current_state(rows(skew=late, since=-SECOND), HEARD, HEARD, NOW)
    assert group(state).state == GREEN


def test_ends_of_the_state_before_are_not_shown() -> None:
    old = rows(since=-60 * SECOND)
    turned = LatestRow("signal-state/2", HEARD, HEARD, "stop-And-Remain")
    state = current_state([turned, *old[1:]], HEARD, HEARD, NOW)
    assert (group(state).minimum_end_time, group(state).maximum_end_time) == (None, None)


def test_other_properties_and_wild_ends_do_no_harm() -> None:
    wild = [
        LatestRow("signal-state/1", HEARD, HEARD, GREEN),
        LatestRow("minimum-end/1", HEARD, HEARD, 1e300),
        LatestRow("maximum-end/1", HEARD, HEARD, float("nan")),
        LatestRow("humidity", HEARD, HEARD, 5.0),
        LatestRow("signal-state/x", HEARD, HEARD, GREEN),
    ]
    state = current_state(wild, HEARD, HEARD, NOW)
    assert group(state).state == GREEN
    assert group(state).minimum_end_time is None


def test_groups_are_in_order_and_all_there() -> None:
    found = [LatestRow(f"signal-state/{n}", HEARD, HEARD, GREEN) for n in (10, 9, 1)]
    found.append(LatestRow("minimum-end/4", HEARD, HEARD, NOW.timestamp()))
    state = current_state(found, HEARD, HEARD, NOW)
    assert [shown.signal_group for shown in state.groups] == [1, 4, 9, 10]
    assert state.groups[1].state == "unknown"
