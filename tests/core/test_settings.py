"""Settings: each variable is read, typed, documented; a bad value names its variable."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from core.errors import CityError
from core.settings import PREFIX, Settings


def test_every_knob_is_read_from_its_variable() -> None:
    given = {
        "CHIMATA_DATABASE_URL": "postgresql:///city",
        "CHIMATA_MQTT_VERSION": "4",
        "CHIMATA_MQTT_SHARED": "no",
        "CHIMATA_DATA": "/somewhere/街",
        "CHIMATA_BATCH_SECONDS_MAX": "0.2",
        "CHIMATA_UNKNOWN": "ignored",
        "DATABASE_URL": "ignored",
    }
    settings = Settings.from_environment(given)
    assert settings.database_url == "postgresql:///city"
    assert settings.mqtt_version == 4
    assert settings.mqtt_shared is False
    assert settings.data == Path("/somewhere/街")
    assert settings.batch_seconds_max == 0.2
    assert settings.kafka_group == Settings().kafka_group


def test_nothing_set_is_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()


@pytest.mark.parametrize("text", ["1", "true", "YES", "True"])
def test_true_has_several_words(text: str) -> None:
    assert Settings.from_environment({"CHIMATA_MQTT_SHARED": text}).mqtt_shared is True


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BODY_BYTES_MAX", "8MB"),
        ("BODY_BYTES_MAX", "1.5"),
        ("BODY_BYTES_MAX", ""),
        ("BODY_BYTES_MAX", "-1"),
        ("COLUMNSTORE_HOURS", "-30"),
        ("BATCH_SECONDS_MAX", "soon"),
        ("BATCH_SECONDS_MAX", "nan"),
        ("BATCH_SECONDS_MAX", "inf"),
        ("BATCH_SECONDS_MAX", "-0.1"),
        ("MQTT_SHARED", "perhaps"),
        ("MQTT_SHARED", ""),
        ("MQTT_VERSION", "6"),
        ("MQTT_VERSION", "3"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, text: str) -> None:
    with pytest.raises(CityError) as caught:
        Settings.from_environment({PREFIX + name: text})
    assert caught.value.slug == "invalid"
    assert PREFIX + name in str(caught.value)
    assert repr(text) in str(caught.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().http = "0.0.0.0:80"  # type: ignore[misc]
    assert all(knob.name.islower() for knob in fields(Settings))
