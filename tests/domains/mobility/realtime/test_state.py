"""What feeds said last, from a real database: newest wins, who is silent leaves."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from google.transit import gtfs_realtime_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sector import Context
from core.storage.pool import DatabaseRole, open_session
from deploy.imports import gtfs_rt
from domains.mobility.decode import decode
from domains.mobility.realtime import state
from domains.mobility.realtime.overlay import Overlay
from tests.domains.mobility.feeds import import_recorded
from tests.domains.mobility.realtime.feeds import AT, alert, message, position, update
from tests.domains.mobility.realtime.town import Town, at, opened, rows, told, town

DAY = date(2026, 1, 1)
CALTRAIN_AT = 1_699_405_560


@pytest.fixture
def bus(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    monkeypatch.setattr(state, "REFRESH_SECONDS", -1.0)  # each look is a new one
    with opened(database_url) as found:
        yield found


def late(minutes: int, trip: str = "t0") -> dict[str, Any]:
    return update(trip, {"stopSequence": 2, "arrival": {"delay": minutes * 60}})


def minutes_late(overlay: Overlay, trip: int = 0) -> int | None:
    state = overlay.trips.get((trip, DAY))
    planned = town().stop_times.arrival[trip * 5 : trip * 5 + 5]
    return None if state is None else int(state.arrival[-1] - planned[-1]) // 60


@pytest.mark.shared_data
def test_a_recorded_feed_matches_its_timetable(
    database_url: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of Caltrain's 19 trip updates and 14 positions, imported years later."""
    monkeypatch.setattr(state, "REFRESH_SECONDS", -1.0)
    folder = shared_data / "gtfs/caltrain-2023"
    import_recorded(database_url, shared_data, "caltrain")
    sources = [str(path) for path in sorted(folder.glob("*.pb"))]
    with open_session(database_url, DatabaseRole.INGEST) as session:
        found = gtfs_rt.run(session, sources)
        again = gtfs_rt.run(session, sources, feed="caltrain-2023")
    assert found["trip_updates"] == 19
    assert found["vehicle_positions"] == 14
    assert (found["alerts"], found["matched"], found["refused"]) == (0, 33, 0)
    assert found["static_feeds"] == {"caltrain-2023": "caltrain"}
    assert (again["stored"], again["duplicate"]) == (0, found["stored"])
    with opened(database_url, "caltrain-2023", stored=True) as caltrain:
        planned = caltrain.timetable
        overlay = caltrain.overlay(CALTRAIN_AT)
        assert told(caltrain.overlay(CALTRAIN_AT, anew=True)) == told(overlay)
    assert len(overlay.trips) == 19
    assert len(overlay.vehicles) == 14
    assert {each.trip is not None and each.trip[1] for each in overlay.vehicles} == {
        date(2023, 11, 7)
    }
    names = planned.trips.ids.texts
    read = pb.FeedMessage.FromString((folder / "trip_updates.pb").read_bytes())
    assert {names[trip] for trip, _ in overlay.trips} == {
        f"caltrain:{entity.trip_update.trip.trip_id}" for entity in read.entity
    }


def test_a_late_message_overwrites_nothing_newer(bus: Town) -> None:
    """Positions, trip updates and alerts; nor is over what it does not have."""
    closed = alert("x", {"stopId": "c"}, effect="NO_SERVICE")
    opened_again = alert("x", {"stopId": "c"}, effect="UNKNOWN_EFFECT")
    older = message(position("7", 135.0, 35.0), late(2), closed, alert("old"), time=AT)
    newer = message(position("7", 135.0, 35.01), late(9), late(3, "t1"), opened_again, time=AT + 20)
    bus.send(newer, AT + 21)
    before = bus.overlay(AT + 22)
    for received in (AT + 23, AT + 40):  # at once, and after the pause of a clock set right
        bus.send(older, received)
        for anew in (False, True):
            assert told(bus.overlay(AT + 40, anew=anew)) == told(before)
    assert minutes_late(before) == 9
    assert minutes_late(before, 1) == 3
    assert before.vehicles[0].latitude == 35.01
    assert not before.closures
    assert set(before.alerts) == {"bus:x"}


def test_a_late_message_is_late_for_another_process_too(bus: Town) -> None:
    """Which has no memory of what was newer."""
    bus.send(message(late(9), time=AT + 20), AT + 21)
    bus.memory.clear()
    bus.send(message(late(2), late(2, "t1"), time=AT), AT + 40)
    assert minutes_late(bus.overlay(AT + 41)) == 9
    assert minutes_late(bus.overlay(AT + 41), 1) is None


def test_a_silent_vehicle_leaves_after_90_s(bus: Town) -> None:
    bus.send(message(position("7", 135.0, 35.0, trip="t0"), position("8", 136.0, 35.0)), AT)
    bus.send(message(position("8", 136.0, 35.0), time=AT + 60), AT + 60)
    assert {each.id for each in bus.overlay(AT + 90).vehicles} == {"bus:7", "bus:8"}
    gone = bus.overlay(AT + 91)
    assert [each.id for each in gone.vehicles] == ["bus:8"]
    assert not gone.trips  # nor is anything foretold by it
    assert not bus.overlay(AT + 151).vehicles


def test_an_alert_closes_and_the_next_message_opens(bus: Town) -> None:
    """A station closes with its platforms; what the newest message does not have is over."""
    closed = alert("x", {"stopId": "S"}, {"routeId": "r"}, effect="NO_SERVICE")
    bus.send(message(closed, alert("y")), AT)
    (closure,) = bus.overlay(AT + 1).closures
    stops = bus.timetable.stops.ids.numbers
    assert closure.stops == {stops["bus:S"], stops["bus:a"]}
    assert closure.routes == {0}
    bus.send(message(alert("y"), time=AT + 15), AT + 15)
    after = bus.overlay(AT + 16)
    assert not after.closures
    assert set(after.alerts) == {"bus:y"}


def test_kinds_told_apart_do_not_end_each_other(bus: Town) -> None:
    """Three messages of one gateway; but where one tells all, what it left out is over."""
    bus.send(message(late(2)), AT)
    bus.send(message(alert("x"), time=AT + 5), AT + 5)
    bus.send(message(position("7", 136.0, 35.0), time=AT + 6), AT + 6)
    overlay = bus.overlay(AT + 7)
    assert minutes_late(overlay) == 2
    assert set(overlay.alerts) == {"bus:x"}
    bus.send(message(late(2), alert("x"), time=AT + 10), AT + 10)
    bus.send(message(alert("x"), time=AT + 20), AT + 20)
    assert minutes_late(bus.overlay(AT + 21)) is None
    assert set(bus.overlay(AT + 21).alerts) == {"bus:x"}


def test_a_feed_gone_silent(bus: Town) -> None:
    """Trip updates hold for five minutes, alerts for ten."""
    bus.send(message(late(2), alert("x")), AT)
    assert minutes_late(bus.overlay(AT + 300)) == 2
    assert minutes_late(bus.overlay(AT + 301)) is None
    assert set(bus.overlay(AT + 600).alerts) == {"bus:x"}
    assert not bus.overlay(AT + 601).alerts


def test_what_stays_as_it_was_is_kept_alive(bus: Town) -> None:
    """An update that says when it was made, long ago, and is in each message since."""
    entity = late(2)
    entity["tripUpdate"]["timestamp"] = AT
    for minute in range(12):
        bus.send(message(entity, time=AT + 60 * minute), AT + 60 * minute)
    assert minutes_late(bus.overlay(AT + 700)) == 2


def test_differential_messages(bus: Town) -> None:
    """They add and take back, and end nothing else."""
    bus.send(message(late(2), alert("x"), differential=True), AT)
    bus.send(message(late(3, "t1"), differential=True, time=AT + 1), AT + 1)
    both = bus.overlay(AT + 2)
    assert (minutes_late(both), minutes_late(both, 1)) == (2, 3)
    gone = {**late(2), "isDeleted": True}, {**alert("x"), "isDeleted": True}
    bus.send(message(*gone, differential=True, time=AT + 3), AT + 3)
    after = bus.overlay(AT + 4)
    assert (minutes_late(after), minutes_late(after, 1)) == (None, 3)
    assert not after.alerts


def test_what_is_not_the_latest_yet_is_seen(bus: Town) -> None:
    """The projection trails the appends; a look does not."""
    bus.send(message(late(2)), AT)
    bus.overlay(AT)
    bus.send(message(late(4), time=AT + 5), AT + 5, drain=False)
    assert minutes_late(bus.overlay(AT + 6)) == 4
    assert minutes_late(bus.overlay(AT + 6, anew=True)) == 4


def test_documents_that_are_none_change_nothing(bus: Town) -> None:
    """Whoever sends plain JSON may send anything."""
    entities = state.Entities()
    values = [b"5", b"null", b"[]", b'{"trip":5}', b'{"trip":{"tripId":7}}',
              b'{"trip":{"tripId":"t0"},"stopTimeUpdate":7}',
              b'{"trip":{"tripId":"t0"},"stopTimeUpdate":[{"stopSequence":"x","arrival":[]}]}',
              b'{"trip":{"tripId":"t0"},"stopTimeUpdate":[{"arrival":{"time":"x"}}]}',
              b'{"effect":"NO_SERVICE","informedEntity":[3]}',
              b'{"effect":"NO_SERVICE","informedEntity":[{"stopId":[]}],"activePeriod":3}',
              b'{"kinds":5,"things":[[]]}']  # fmt: skip
    for name in ("vehicle-journey", "trip-update", "alert", "feed-message/alert"):
        for number, value in enumerate(values):
            thing = f"bus:x:{number}"
            entities.take([{"thing": thing, "property": name, "time": at(AT), "document": value}])
            place = {"longitude": 136.0, "latitude": 35.0, "speed": None, "course": None}
            where = {"thing": thing, "property": "vehicle-position", "time": at(AT)}
            entities.take([where | place])
    found = state.State(entities).see(bus.timetable, at(AT + 1))
    assert not found.trips
    assert not found.closures


def test_a_look_is_kept_for_a_moment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "REFRESH_SECONDS", 60.0)
    with opened(database_url) as bus:
        first = bus.overlay(AT)
        bus.send(message(late(2)), AT)
        assert bus.overlay(AT + 0.1) is first


# --- any order, any repeat ------------------------------------------------------------------------

TRIPS = ("t0", "t1", "t2")
feeds = st.lists(
    st.tuples(
        st.frozensets(st.sampled_from(TRIPS)),
        st.integers(0, 9),
        st.frozensets(st.sampled_from(("x", "y"))),
        st.sampled_from(("a", "c", "S")),
        st.frozensets(st.sampled_from(("7", "8"))),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=6,
)


def message_of(number: int, feed: tuple[Any, ...]) -> bytes:
    trips, delay, alerts, stop, vehicles, place = feed
    return message(
        *(late(delay, trip) for trip in sorted(trips)),
        *(alert(name, {"stopId": stop}, effect="NO_SERVICE") for name in sorted(alerts)),
        *(position(name, 135.0, 35.0 + place / 100) for name in sorted(vehicles)),
        time=AT + 10 * number,
    )


def seen(payloads: list[bytes], now: datetime) -> dict[str, Any]:
    entities, memory = state.Entities(), dict[Any, Any]()
    for payload in payloads:
        context = Context("bus", (AT + 100) * 1_000_000, memory)
        entities.take(rows(decode("gtfs-rt", payload, context)))
    return told(state.State(entities).see(town(), now))


@given(feeds=feeds, order=st.data())
@settings(max_examples=60, deadline=None)
def test_any_order_and_repeats_tell_the_same(feeds: list[Any], order: st.DataObject) -> None:
    """As each message once, in the order in which it was made."""
    payloads = [message_of(number, feed) for number, feed in enumerate(feeds)]
    shuffled = order.draw(st.permutations(payloads + payloads[: len(payloads) // 2]))
    now = datetime.fromtimestamp(AT + 70, UTC)
    assert seen(shuffled, now) == seen(payloads, now)
