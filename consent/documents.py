"""Documents whole, as text: a JSON number may have more digits than any number of ours.

A document of such a property says of which time it tells: `until`, µs since 1970, null for ever. It
is permitted up to then, or not at all. `path` is a jsonpath that has to find something in it.
"""

from collections.abc import Iterator

from consent.personal import BY_GRANTS, CHUNK, EXACT, Permit, Query, Rows, branch, provision
from consent.results import Row
from core.sensorthings import ResultKind

_WHOLE = """JOIN LATERAL (SELECT FROM (VALUES (o.result)) AS v (result)
     WHERE CASE jsonb_typeof(v.result->'until')
           WHEN 'number' THEN (v.result->>'until')::numeric <= extract(epoch FROM p.upper) * 1000000
           ELSE p.upper = 'infinity' END
       AND (%(path)s::jsonpath IS NULL OR v.result @? %(path)s::jsonpath)) AS whole ON true"""
SELECT_DOCUMENTS = CHUNK.format(
    permitted=BY_GRANTS,
    branches=branch(
        EXACT, ResultKind.DOCUMENT, "observation_document", _WHOLE, {"text": "o.result::text"}
    ),
)


def matching(path: str | None) -> Query:
    """The documents in which a jsonpath finds something; None: all that are permitted."""
    return Query(SELECT_DOCUMENTS, _shown, provision, {"path": path})


def _shown(permit: Permit, rows: Rows) -> Iterator[Row]:
    for _, _, _, quality, _, text, *_ in rows:
        shared = {"persons": permit.subjects, "thing": permit.thing}
        yield {**shared, "quality": quality, "result": text}
