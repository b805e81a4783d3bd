"""The API's documentation as a page of our own: no script and nothing from another host."""

import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response

from core.errors import KINDS, CityError

router = APIRouter(include_in_schema=False)

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, "Noto Sans JP", sans-serif }
body { max-width: 60rem; margin: 0 auto; padding: 1rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid }
details { margin: .5rem 0; border: 1px solid; border-radius: .4rem; padding: .5rem .8rem }
summary { cursor: pointer; overflow-wrap: anywhere }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { overflow-x: auto; border-left: 3px solid; padding-left: .8rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }
"""


@router.get("/docs")
def read_docs(request: Request) -> Response:
    """Every operation of the OpenAPI document, by tag."""
    described = request.app.openapi()
    by_tag: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).append(_operation(described, path, method, operation))
    sections = [f"<h2>{escape(tag)}</h2>{''.join(each)}" for tag, each in by_tag.items()]
    info = described["info"]
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body><main><h1>{escape(info["title"])} API {escape(info["version"])}</h1>
<p>{escape(info.get("description", ""))}</p>
<p>The same as OpenAPI for your tools: <a href="/openapi.json">/openapi.json</a></p>
{"".join(sections)}<h2>Problems</h2>{_problems()}</main></body></html>"""
    return Response(page, media_type="text/html; charset=utf-8")


@router.get("/problems/{slug}")
def read_problem(slug: str) -> Response:
    """What a problem's `type` points at."""
    kind = KINDS.get(slug)
    if kind is None:
        raise CityError("not-found", f"there is no problem {slug!r}")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(kind.title)}</title>'
        f"<main><h1>{escape(kind.title)}</h1><p>HTTP {kind.status} <code>{kind.slug}</code>. "
        '<a href="/docs">API documentation</a></p></main></html>'
    )
    return Response(page, media_type="text/html; charset=utf-8")


def _operation(described: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(_parameter(each) for each in operation.get("parameters", ()))
    table = f"<table><tr><th>field<th>in<th>meaning<th>example</tr>{rows}</table>" if rows else ""
    answers = "".join(
        f"<li>{escape(status)}: {escape(answer.get('description', ''))}</li>"
        for status, answer in operation.get("responses", {}).items()
    )
    shown = _example(described, operation)
    example = f"<p>Example:</p><pre>{escape(shown)}</pre>" if shown else ""
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code></summary>"
        f"<p>{escape(operation.get('description') or operation.get('summary') or '')}</p>"
        f"{table}<ul>{answers}</ul>{example}</details>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter.get("schema", {})
    shown = (schema.get("examples") or [schema.get("default", "")])[0]
    needed = " (required)" if parameter.get("required") else ""
    meaning = parameter.get("description") or schema.get("description") or ""
    return (
        f"<tr><td><code>{escape(parameter['name'])}</code>{needed}<td>{parameter['in']}"
        f"<td>{escape(meaning)}<td><code>{escape(str(shown))}</code></tr>"
    )


def _example(described: dict[str, Any], operation: dict[str, Any]) -> str:
    """The example of the 200 answer's model, if it has one."""
    content = operation.get("responses", {}).get("200", {}).get("content", {})
    for media in content.values():
        name = str(media.get("schema", {}).get("$ref", "")).rpartition("/")[2]
        examples = described.get("components", {}).get("schemas", {}).get(name, {}).get("examples")
        if examples:
            return json.dumps(examples[0], ensure_ascii=False, indent=2)
    return ""


def _problems() -> str:
    rows = "".join(
        f"<tr><td>{kind.status}<td><code>{kind.slug}</code><td>{escape(kind.title)}</tr>"
        for kind in KINDS.values()
    )
    return f"<table><tr><th>status<th>type<th>meaning</tr>{rows}</table>"
