"""Names in the language that a caller reads (translations.txt), and stops found by their names."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from core.errors import invalid
from domains.mobility.network.timetable import Timetable, Version

TAG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,7}")
LANGUAGES_MAX = 10
FOLDED_KANA = {code: code - 0x60 for code in range(ord("ァ"), ord("ヶ") + 1)}
"""Katakana to hiragana: readings are written in either."""

Key = tuple[int, str, str, str]
"""Index of the version, table, field, language in lower case."""
Which = tuple[str, str] | str
"""(record_id, record_sub_id), or the field_value."""
Languages = tuple[str, ...]
"""Lower case, the best first."""


@dataclass(frozen=True, slots=True)
class Names:
    """What translations.txt of each version says."""

    versions: Sequence[Version]
    translations: Mapping[Key, Mapping[Which, str]]

    def of(
        self,
        languages: Languages,
        version: int,
        field: tuple[str, str],
        record: str,
        value: str | None,
        sub: str = "",
    ) -> str | None:
        """A field's value in the first of the languages that has it, else as the feed gives it.

        `field` is (table, field), `record` the row's id in its feed. A translation of the record
        goes before one of the value (GTFS, translations.txt).
        """
        if not value or not self.translations:
            return value
        own = (self.versions[version].language or "").lower()
        for language in languages:
            for tag in _wider(language):
                known = self.translations.get((version, *field, tag))
                if known is not None:
                    found = known.get((record, sub)) or known.get(value)
                    if found:
                        return found
                if tag == own:
                    return value
        return value


def _wider(tag: str) -> Iterator[str]:
    """en-gb, then en (RFC 4647, 3.4)."""
    while tag:
        yield tag
        tag = tag.rpartition("-")[0]


def names_of(
    versions: Sequence[Version], rows: Iterable[tuple[int, str, str, str, str, str, str, str]]
) -> Names:
    """From rows of (index of the version, table, field, language, translation, record_id,
    record_sub_id, field_value); an empty text is none."""
    found: dict[Key, dict[Which, str]] = {}
    for version, table, field, language, translation, record, sub, value in rows:
        known = found.setdefault((version, table, field, language.lower()), {})
        known[value if value and not record else (record, sub)] = translation
    return Names(versions, found)


def languages_of(lang: str | None, accepted: str) -> Languages:
    """What `?lang=` asks for, else the Accept-Language header (RFC 9110, 12.5.4).

    CityError `invalid` for a `lang` that is no BCP 47 tag; a header that is none is passed over.
    """
    if lang is not None:
        if not TAG.fullmatch(lang):
            raise invalid("lang", "must be a language tag (BCP 47), such as ja or en")
        return (lang.lower(),)
    weighed: list[tuple[float, str]] = []
    for part in accepted.split(",")[:LANGUAGES_MAX]:
        tag, _, weight = part.strip().partition(";q=")
        if TAG.fullmatch(tag):
            weighed.append((-_quality(weight), tag.lower()))
    return tuple(tag for quality, tag in sorted(weighed, key=lambda each: each[0]) if quality < 0)


def _quality(text: str) -> float:
    """1 where none is given; 0, which is never, for what is no number."""
    if not text:
        return 1.0
    return float(text) if re.fullmatch(r"[01](?:\.\d{0,3})?", text.strip()) else 0.0


def fold(text: str) -> str:
    """What two spellings of one name have in common: width, case, and the kind of kana."""
    return unicodedata.normalize("NFKC", text).casefold().translate(FOLDED_KANA)


class Search:
    """Stops by a part of any of their names, in any language, or by their code."""

    def __init__(self, timetable: Timetable, names: Names) -> None:
        stops = timetable.stops
        spoken = [
            [
                known
                for (of, table, field, _), known in names.translations.items()
                if of == version and (table, field) == ("stops", "stop_name")
            ]
            for version in range(len(timetable.versions))
        ]
        lines = []
        for number, name in enumerate(stops.names):
            version = int(stops.version[number])
            record = local(stops.ids.texts[number])
            texts = [name, stops.codes[number] or ""]
            texts += [each.get((record, "")) or each.get(name) or "" for each in spoken[version]]
            lines.append(fold("\t".join(texts)).replace("\n", " "))
        self._text = "\n".join(lines)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def find(self, text: str) -> Iterator[int]:
        """Numbers of stops in their order."""
        wanted = fold(text).replace("\n", " ")
        at = self._text.find(wanted)
        while at >= 0 and wanted:
            number = bisect_right(self._starts, at) - 1
            yield number
            at = self._text.find(wanted, self._starts[number + 1])


def local(id_text: str) -> str:
    """The id as its feed gives it, of `feed:id`."""
    return id_text.partition(":")[2]
