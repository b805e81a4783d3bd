"""Plain values as FHIR R4 Observations: whatever is measured, fhir.resources takes it."""

from datetime import UTC, datetime, timedelta

from fhir.resources.R4B.observation import Observation
from hypothesis import given
from hypothesis import strategies as st

from domains.health.portable import CODES, ndjson, resource
from domains.health.sector import SECTOR

KINDS = {"number": st.floats(-1e6, 1e6), "category": st.text(min_size=1, max_size=9)}
ROWS = st.one_of(
    st.fixed_dictionaries(
        {
            "sector": st.just("health"),
            "thing": st.just("band"),
            "property": st.sampled_from([each.name for each in SECTOR.properties]),
            "unit": st.sampled_from([None, "/min", "%"]),
            "kind": st.just(kind),
            "quality": st.sampled_from([0, 2]),
            "phenomenon_time": st.datetimes(
                datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)
            ),
            "result": results,
        }
    )
    for kind, results in KINDS.items()
)


@given(ROWS)
def test_every_plain_value_is_an_observation(row: dict[str, object]) -> None:
    told = resource(row)
    assert told is not None
    assert told["status"] == ("unknown" if row["quality"] else "final")
    Observation.model_validate(told)


def test_what_no_resource_can_tell_is_left_to_the_other_formats() -> None:
    place = {"sector": "health", "kind": "position", "result": {}}
    note = {"sector": "health", "kind": "document", "result": {"a": 1}}
    trip = {"sector": "mobility", "kind": "number", "result": 1.0}
    assert list(ndjson([[place, note, trip], []])) == [b"", b""]


def test_a_code_is_the_first_of_its_property() -> None:
    row = {
        "sector": "health", "thing": "band", "property": "heart-rate", "unit": "/min",
        "kind": "number", "quality": 0, "result": 61.5,
        "phenomenon_time": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=1),
    }  # fmt: skip
    assert resource(row) == {
        "resourceType": "Observation", "status": "final", "device": {"display": "band"},
        "code": {"text": "heart-rate",
                 "coding": [{"system": "http://loinc.org", "code": CODES["heart-rate"]}]},
        "effectiveDateTime": "2026-01-01T00:00:00.000001+00:00",
        "valueQuantity": {"value": 61.5, "unit": "/min", "code": "/min",
                          "system": "http://unitsofmeasure.org"},
    }  # fmt: skip
    assert CODES["oxygen-saturation"] == "2708-6"
