"""What a sector declares: its observed properties, units, formats and default data class."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from core.sensorthings import DataClass, ResultKind


@dataclass(frozen=True, slots=True)
class ObservedProperty:
    """One observed property: UCUM unit of stored results, plausible range, vocabulary.

    `minimum` and `maximum` are inclusive and in `unit`; a result outside is stored with
    Quality.OUT_OF_RANGE. `vocabulary` lists the texts of a category. `decimals` is the declared
    resolution, as decimal places in `unit` (0 to 9): results that have no more of them take a few
    bits in a columnstore (core/resolution.py); others are kept as they come. `category` is what it
    tells of a person (consent/vocabulary.py); where it has none, no grant reaches it. `data_class`
    is its own where that is not its sector's. `identifying`: its documents name persons in words of
    the sender, so that they leave only by a route of the sector that puts names of ours in place.
    """

    name: str
    title_ja: str
    title_en: str
    unit: str = "1"
    kind: ResultKind = ResultKind.NUMBER
    minimum: float | None = None
    maximum: float | None = None
    vocabulary: tuple[str, ...] = ()
    decimals: int | None = None
    category: str | None = None
    data_class: DataClass | None = None
    identifying: bool = False


@dataclass(frozen=True, eq=False)
class Sector:
    """One folder of domains/: declared once, read by ingest, storage, API and pages.

    Two sectors are equal only if they are the same one: rules are cached by sector.
    """

    name: str
    title_ja: str
    title_en: str
    data_class: DataClass
    formats: tuple[str, ...]
    properties: tuple[ObservedProperty, ...]
    thing_title_ja: str = "機器"
    thing_title_en: str = "Thing"
    colour: str = "#2b6cb0"

    @cached_property
    def by_name(self) -> dict[str, ObservedProperty]:
        """Observed properties by name."""
        return {declared.name: declared for declared in self.properties}

    def class_of(self, observed_property: str) -> DataClass:
        """The data class of a property, by its base name; an undeclared one has the sector's."""
        declared = self.by_name.get(observed_property)
        own = None if declared is None else declared.data_class
        return self.data_class if own is None else own

    @cached_property
    def classes(self) -> frozenset[DataClass]:
        """Every data class that it may hold."""
        return frozenset((self.data_class, *(self.class_of(name) for name in self.by_name)))

    @cached_property
    def is_about_persons(self) -> bool:
        """Whether any of it is personal: then whatever cannot be read may be."""
        return DataClass.PERSONAL in self.classes


# Formats that every sector takes, besides its native ones (RFC 8428 and docs/ingest.md).
COMMON_FORMATS = ("senml-json", "senml-cbor", "json", "arrow")


def all_formats(sector: Sector) -> tuple[str, ...]:
    """Every format name the sector takes on a topic or URL."""
    return (*COMMON_FORMATS, *(name for name in sector.formats if name not in COMMON_FORMATS))


@dataclass(frozen=True, slots=True)
class Context:
    """What a decoder may know besides the bytes.

    `received_at` is µs since 1970 by the receiver's clock. `memory` is one dict a sector and
    process: the only state a decoder may keep (last frames, unfinished multipart messages); it
    must stay bounded, and losing it must cost no more than a repeated observation.
    """

    gateway: str
    received_at: int
    memory: dict[Any, Any] = field(default_factory=dict)
