"""What is wrong with a feed: each kind of problem once, with how many rows have it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

EXAMPLES_MAX = 20
"""Examples that are kept of one kind of problem; all are counted."""
EXAMPLE_CHARACTERS_MAX = 200
ERROR, WARNING, NOTE = "error", "warning", "note"

PENALTY = {ERROR: (5.0, 45.0), WARNING: (1.0, 9.0), NOTE: (0.0, 0.0)}
"""What a kind of problem takes from a score of 100: always the first, and the second times the
share of its file's rows that have it."""


class Kind(NamedTuple):
    """One kind of problem."""

    severity: str
    ja: str
    en: str


KINDS: dict[str, Kind] = {
    "missing_file": Kind(ERROR, "必須のファイルがありません", "A required file is missing"),
    "missing_feed_info": Kind(
        WARNING, "feed_info.txt がありません", "There is no feed_info.txt: who publishes this?"
    ),
    "missing_column": Kind(ERROR, "必須の列がありません", "A required column is missing"),
    "missing_value": Kind(ERROR, "必須の値がありません", "A required value is missing"),
    "invalid_value": Kind(ERROR, "値を読み取れません", "A value cannot be read"),
    "too_long": Kind(ERROR, "ID が長すぎます", "An id is too long"),
    "duplicate_id": Kind(
        ERROR,
        "同じ ID の行が前にあります（最初の行を採用）",
        "An earlier row has the same id; the first one holds",
    ),
    "duplicate_file": Kind(
        ERROR,
        "同じ名前のファイルが 2 つあります（最初を採用）",
        "Two files have the same name; the first one holds",
    ),
    "missing_reference": Kind(
        ERROR, "参照先がフィードにありません", "It names something that the feed does not have"
    ),
    "row_length": Kind(
        WARNING, "行の列数が見出しと異なります", "A row has more or fewer values than the header"
    ),
    "csv_unreadable": Kind(
        ERROR, "CSV として読めない行があります", "A row cannot be read as CSV"
    ),
    "encoding": Kind(
        WARNING,
        "UTF-8 ではありません（文字コードを推定して変換）",
        "The file is not UTF-8; its encoding was guessed, and converted",
    ),
    "encoding_unknown": Kind(
        ERROR,
        "文字コードを判別できません（読めない文字は置換）",
        "The encoding is unknown; what cannot be read was replaced",
    ),
    "column_name": Kind(
        WARNING, "列名の綴りが規格と異なります",
        "A column's name is misspelt; taken as the standard's"
    ),
    "column_twice": Kind(
        WARNING, "同じ列名が 2 つあります（最初を採用）",
        "A column is there twice; the first one holds"
    ),
    "column_not_kept": Kind(
        NOTE, "規格にない列は保存されません", "A column that GTFS does not have is not kept"
    ),
    "file_not_kept": Kind(
        NOTE, "GTFS でないファイルは保存されません", "A file that is none of GTFS is not kept"
    ),
    "timezone": Kind(
        ERROR,
        "タイムゾーンが不明です（Asia/Tokyo とみなす）",
        "The timezone is not known; Asia/Tokyo is assumed",
    ),
    "route_type_unknown": Kind(
        ERROR,
        "route_type が不明です（バスとみなす）",
        "The route type is not known; taken as a bus (3)",
    ),
    "stop_without_name": Kind(WARNING, "停留所に名前がありません", "A stop has no name"),
    "stop_without_place": Kind(
        ERROR, "停留所の位置がありません", "A stop or station has no place"
    ),
    "stop_far_away": Kind(
        WARNING, "停留所が他から離れすぎています", "A stop is far away from all others"
    ),
    "stop_unused": Kind(NOTE, "どの便も停まらない停留所です", "No trip calls at this stop"),
    "route_without_name": Kind(ERROR, "路線に名前がありません", "A route has no name"),
    "route_without_trips": Kind(WARNING, "便のない路線です", "A route has no trips"),
    "trip_without_stops": Kind(
        ERROR, "停車が 2 つ未満の便です", "A trip has fewer than two stop times"
    ),
    "trip_without_days": Kind(
        WARNING, "運行日のない便です", "A trip runs on no day at all"
    ),
    "trip_without_end_times": Kind(
        ERROR,
        "始発または終着の時刻がない便です",
        "The first or the last stop of a trip has no time",
    ),
    "time_backwards": Kind(
        ERROR, "時刻が前の停車より戻っています", "A time is before that of the stop before"
    ),
    "impossible_speed": Kind(
        WARNING,
        "停留所間の速度がその交通機関では不可能です",
        "Faster between two stops than this kind of vehicle goes",
    ),
    "calendar_empty": Kind(ERROR, "運行日がまったくありません", "No service runs on any day"),
    "calendar_expired": Kind(WARNING, "有効期間が終わっています", "The feed is no longer valid"),
    "calendar_future": Kind(NOTE, "有効期間がまだ始まっていません", "The feed is not valid yet"),
    "calendar_backwards": Kind(
        ERROR, "終了日が開始日より前です", "A service ends before it starts"
    ),
    "holiday_service": Kind(
        NOTE,
        "平日ダイヤが祝日にも運行します（calendar_dates に例外なし）",
        "A weekday service runs on a national holiday: calendar_dates has no exception",
    ),
    "shape_unused": Kind(NOTE, "どの便も使わない経路形状です", "No trip uses this shape"),
    "zone_unknown": Kind(
        WARNING, "運賃の区域がどの停留所にもありません",
        "A fare rule names a zone that no stop is in"
    ),
    "duplicate_translation": Kind(
        WARNING,
        "同じ項目の翻訳が 2 つあります（最初を公開）",
        "The same is translated twice; the first one is published",
    ),
    "translation_unused": Kind(
        NOTE, "どの項目とも一致しない翻訳です", "A translation is of no value of the feed"
    ),
}  # fmt: skip


@dataclass(slots=True)
class Problem:
    """One kind of problem in one feed; an example is {file, row, field, id}, of which some."""

    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
    files: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Report:
    """Problems by code, and how many rows of which file were not stored."""

    problems: dict[str, Problem] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        code: str,
        file: str,
        *,
        name: str | None = None,
        rows: Iterable[int] = (),
        ids: Iterable[Any] = (),
        count: int | None = None,
    ) -> None:
        """`count` (default: of the rows; else 1) cases of KINDS[code]; row 1 is the header.

        `ids` are the values or ids that are wrong, as many as `rows` or of the file as a whole.
        """
        at, what = list(rows), list(islice(ids, EXAMPLES_MAX))
        number = count if count is not None else max(len(at), 1)
        problem = self.problems.setdefault(code, Problem())
        problem.count += number
        problem.files[file] += number
        for index in range(min(max(len(at), len(what), 1), EXAMPLES_MAX - len(problem.examples))):
            example: dict[str, Any] = {"file": file}
            if index < len(at):
                example["row"] = int(at[index])
            if name is not None:
                example["field"] = name
            if index < len(what) and what[index] is not None:
                example["id"] = str(what[index])[:EXAMPLE_CHARACTERS_MAX]
            problem.examples.append(example)

    def score(self, counts: dict[str, int]) -> int:
        """100 less PENALTY of each kind of problem; `counts`: rows found, by file."""
        lost = 0.0
        for code, problem in self.problems.items():
            always, by_share = PENALTY[KINDS[code].severity]
            found = sum(counts.get(file, 0) for file in problem.files)
            lost += always + by_share * min(1.0, problem.count / max(found, 1))
        return max(0, round(100 - lost))

    def quality(self, counts: dict[str, int]) -> dict[str, Any]:
        """What is stored as mobility.feed_version.quality; the gravest problems first."""
        order: Sequence[str] = (ERROR, WARNING, NOTE)
        problems = [
            {
                "code": code,
                "severity": KINDS[code].severity,
                "count": problem.count,
                "message_ja": KINDS[code].ja,
                "message_en": KINDS[code].en,
                "examples": problem.examples,
            }
            for code, problem in self.problems.items()
        ]
        problems.sort(key=lambda p: (order.index(str(p["severity"])), str(p["code"])))
        totals = Counter(str(p["severity"]) for p in problems)
        return {
            "score": self.score(counts),
            **{f"{severity}s": totals[severity] for severity in order},
            "problems": problems,
        }
