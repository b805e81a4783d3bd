"""Who gets in, what goes wrong and how it is told: 401, 403, 404, 405, 413, 422, 500, headers."""

import base64
import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest
from fastapi import APIRouter, Request, Response
from joserfc import jwt
from joserfc.jwk import ECKey

import domains
from api.limits import SECURITY_HEADERS
from core.settings import Settings
from core.tokens import Role, issue, load_keys
from tests.api.city import START, City
from tests.api.conftest import Served, served_with, serving

PROBLEM = "application/problem+json"
ROLES = (None, *Role)


def assert_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The answer is this RFC 9457 problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"] == f"/problems/{slug}"
    assert body["title"]
    return body


@pytest.fixture(scope="module")
def api(module_served: Served, shared_sector: str) -> Iterator[Served]:
    with psycopg.connect(module_served.database_url, autocommit=True) as connection:
        city = City(connection)
        for sector, data_class in (("ports", "open"), (shared_sector, "shared")):
            thing = city.thing(sector, "t1", at=(139.0, 35.0), data_class=data_class)
            stream = city.datastream(thing, "some-number", data_class=data_class)
            city.append(sector, [(stream, START, 1.0)])
    yield module_served


def reads(sector: str) -> list[str]:
    """Every generic path of a sector."""
    return [
        f"/v1/{sector}/things",
        f"/v1/{sector}/things/t1",
        f"/v1/{sector}/latest",
        f"/v1/{sector}/things/t1/observations?property=some-number",
    ]


@pytest.mark.parametrize("role", ROLES)
def test_matrix_of_reads(api: Served, shared_sector: str, role: Role | None) -> None:
    for path in reads("ports"):
        assert api.get(path, role).status_code == 200
    for path in reads(shared_sector):
        answer = api.get(path, role)
        if role in {Role.OPERATOR, Role.STAFF}:
            assert answer.status_code == 200
            assert "t1" in answer.text
        elif role is None:
            assert_problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        else:
            assert_problem(answer, 403, "forbidden")


@pytest.mark.parametrize("role", ROLES)
def test_account_is_the_operators(api: Served, role: Role | None) -> None:
    answer = api.get("/v1/account", role)
    if role is Role.OPERATOR:
        assert answer.json() == {"account": [], "next": None}
        assert answer.headers["cache-control"] == "no-store"
    elif role is None:
        assert_problem(answer, 401, "unauthenticated")
    else:
        assert_problem(answer, 403, "forbidden")


def test_a_refusal_is_the_same_whether_or_not_there_is_something(
    api: Served, shared_sector: str
) -> None:
    for role in (None, Role.GATEWAY, Role.CITIZEN):
        there, not_there = (
            api.get(f"/v1/{shared_sector}/things/{thing}", role) for thing in ("t1", "absent")
        )
        assert (there.status_code, there.content) == (not_there.status_code, not_there.content)


def test_sectors_count_only_what_is_visible(api: Served, shared_sector: str) -> None:
    counts = {}
    for role in (None, Role.OPERATOR):
        sectors = api.get("/v1/sectors", role).json()["sectors"]
        counts[role] = {s["name"]: s["things"] for s in sectors}[shared_sector]
    assert counts == {None: 0, Role.OPERATOR: 1}


def bad_tokens(api: Served) -> Iterator[str]:
    """Authorization headers that must never count as anonymous."""
    good = api.token(Role.OPERATOR)
    head, claims, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    stranger = ECKey.generate_key("P-256")
    future = int(time.time()) + 600
    forged = {"iss": "chimata", "aud": "chimata", "exp": future, "role": "operator"}
    yield from ("", "Bearer", "Basic dTpw", "Bearer nonsense", f"Token {good}", "a b c")
    yield f"Bearer {good[:-4]}AAAA"
    yield f"Bearer {none}.{claims}."
    yield f"Bearer {head}.{claims}."
    yield f"Bearer {head}.{claims}x.{signature}"
    yield f"Bearer {good} {good}"
    yield f"Bearer {api.token(Role.OPERATOR, lifetime_seconds=-3600)}"
    yield f"Bearer {jwt.encode({'alg': 'ES256'}, forged, stranger, algorithms=['ES256'])}"
    yield "Bearer " + "x" * 10_000
    keys = load_keys(api.data / "keys")
    yield f"Bearer {issue(keys, Role.OPERATOR, audience='another')}"


def test_a_bad_token_is_never_anonymous(api: Served) -> None:
    for header in bad_tokens(api):
        for path in ("/v1/ports/things", "/v1/sectors", "/v1/live"):
            answer = api.get(path, headers={"Authorization": header})
            assert_problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer"), header


def test_health_needs_no_token(api: Served) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "path",
    ["/v1/nowhere/things", "/v1/nowhere/latest", "/v1/nowhere/things/x", "/v1/ports/things/absent",
     "/v1/ports/things/t1/observations?property=absent", "/v1/ports/nothing", "/absent.js",
     "/..%2f..%2fpyproject.toml", "/v1/../pyproject.toml", "/problems/absent",
     "/v1/live?sector=nowhere", "/v1/live?sector=ports,nowhere", "/v1/%00/things"],
)  # fmt: skip
def test_what_is_not_there(api: Served, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code in {404, 422}
    assert answer.headers["content-type"] == PROBLEM
    assert "pyproject" not in answer.json().get("title", "")
    assert b"[project]" not in answer.content


HISTORY = "/v1/ports/things/t1/observations?property=some-number&"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/ports/things?limit=0", "limit"),
        ("/v1/ports/things?limit=-1", "limit"),
        ("/v1/ports/things?limit=x", "limit"),
        ("/v1/ports/things?limit=51", "limit"),
        ("/v1/ports/things?limit=99999999999999999999", "limit"),
        ("/v1/ports/things?after=!", "after"),
        ("/v1/ports/things?after=AA", "after"),  # NUL
        ("/v1/ports/things?after=_w", "after"),  # no UTF-8
        ("/v1/ports/things?q=%00", "q"),
        ("/v1/ports/things?q=" + "x" * 101, "q"),
        ("/v1/ports/latest?bbox=1,2,3", "bbox"),
        ("/v1/ports/latest?bbox=1,2,3,nan", "bbox"),
        ("/v1/ports/latest?bbox=1,2,3,inf", "bbox"),
        ("/v1/ports/latest?bbox=a,b,c,d", "bbox"),
        ("/v1/ports/latest?bbox=-181,0,0,0", "bbox"),
        ("/v1/ports/latest?bbox=0,10,1,9", "bbox"),
        ("/v1/ports/latest?bbox=0,0,1,91", "bbox"),
        ("/v1/ports/latest?near=0,0", "near"),
        ("/v1/ports/latest?near=0,0,0", "near"),
        ("/v1/ports/latest?near=0,0,-5", "near"),
        ("/v1/ports/latest?near=0,0,1e9", "near"),
        ("/v1/ports/latest?near=0,91,5", "near"),
        ("/v1/ports/things/t1/observations", "property"),
        (HISTORY + "from=yesterday", "from"),
        (HISTORY + "from=2026-01-01T00:00:00", "from"),
        (HISTORY + "to=2026-13-01T00:00:00Z", "to"),
        (HISTORY + "from=0001-01-01T00:00:00%2B14:00", "from"),
        (HISTORY + "interval=5", "interval"),
        (HISTORY + "interval=PT0S", "interval"),
        (HISTORY + "interval=P1M", "interval"),
        (HISTORY + "interval=P367D", "interval"),
        (HISTORY + "interval=PT", "interval"),
        (HISTORY + "interval=1w", "interval"),
        (HISTORY + "after=MQ", "after"),
        ("/v1/live?bbox=1", "bbox"),
    ],
)
def test_bad_fields_are_named(api: Served, path: str, field: str) -> None:
    body = assert_problem(api.get(path), 422, "invalid")
    assert [error["name"] for error in body["errors"]] == [field]
    assert body["errors"][0]["reason"]


def test_several_bad_fields_are_all_named(api: Served) -> None:
    body = assert_problem(api.get("/v1/ports/things?limit=x&q=%00"), 422, "invalid")
    assert [error["name"] for error in body["errors"]] == ["limit", "q"]


def test_wrong_method(api: Served) -> None:
    answer = httpx.post(api.url + "/v1/sectors")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET"


def test_long_bodies_are_refused(api: Served) -> None:
    """Declared or streamed, on any path, also where nothing reads the body."""
    for content in (b"x" * 100_001, (b"x" * 1000 for _ in range(101))):
        answer = httpx.post(api.url + "/v1/sectors", content=content)
        assert answer.status_code in {405, 413}
    declared = httpx.post(api.url + "/v1/sectors", content=b"x" * 100_001)
    assert_problem(declared, 413, "too-large")


def test_a_long_body_ends_while_it_is_read(tmp_path: Path, database_url: str) -> None:
    """A route that reads a streamed body over the limit: 413, and not what it made of it."""
    router = APIRouter()

    @router.post("/v1/echo")
    async def echo(request: Request) -> Response:
        return Response(str(len(await request.body())))

    settings = Settings(database_url=database_url, data=tmp_path, body_bytes_max=1000)
    with served_with(settings, router) as running:
        for size, status in ((1000, 200), (1001, 413), (100_000, 413)):
            parts = (b"x" * min(100, size - at) for at in range(0, size, 100))
            answer = httpx.post(running.url + "/v1/echo", content=parts)
            assert answer.status_code == status
        assert_problem(answer, 413, "too-large")


def test_a_fault_of_ours_tells_nothing(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    router = APIRouter()

    @router.get("/v1/broken")
    def broken() -> None:
        raise RuntimeError("secret words")

    with served_with(Settings(database_url=database_url, data=tmp_path), router) as running:
        answer = running.get("/v1/broken")
    body = assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert re.fullmatch(r"[0-9a-f]{16}", body["trace"])
    assert body["trace"] in caplog.text
    assert "secret words" in caplog.text


def test_a_database_that_is_away_is_a_503(tmp_path: Path) -> None:
    url = "postgresql://x@127.0.0.1:9/none?connect_timeout=1"
    with serving(Settings(database_url=url, data=tmp_path)) as running:
        answer = running.get("/healthz")
        assert_problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/v1/sectors", "/v1/nowhere/things", "/healthz"]
)
def test_security_headers_are_on_every_answer(api: Served, path: str) -> None:
    headers = api.get(path, headers={"Origin": "https://elsewhere.example"}).headers
    for name, value in SECURITY_HEADERS.items():
        assert headers[name] == value
    assert "access-control-allow-origin" not in headers


def test_no_page_refers_to_another_host(api: Served) -> None:
    for path in ("/docs", "/problems/invalid", "/"):
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", api.get(path).text)


def test_docs_name_every_operation(api: Served) -> None:
    page = api.get("/docs").text
    for path in api.get("/openapi.json").json()["paths"]:
        assert path in page


def test_openapi_documents_examples_and_problems(api: Served) -> None:
    described = api.get("/openapi.json").json()
    assert "/v1/{sector}/things/{thing}/observations" in described["paths"]
    things = described["paths"]["/v1/{sector}/things"]["get"]
    assert PROBLEM in things["responses"]["422"]["content"]
    assert things["security"]
    assert described["components"]["schemas"]["ThingSummary"]["examples"]
    limit = next(p for p in things["parameters"] if p["name"] == "limit")
    assert limit["schema"]["maximum"] == 50


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[tuple[ECKey, str, list[str]]]:
    """An OIDC issuer's key, the URL of its key set, and what was asked of it."""
    key = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig", "alg": "ES256"})
    body = orjson.dumps({"keys": [key.as_dict(private=False)]})
    asked: list[str] = []

    class Jwks(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Jwks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield key, f"http://127.0.0.1:{server.server_port}/jwks", asked
    server.shutdown()


def test_tokens_of_an_outside_issuer(
    outside: tuple[ECKey, str, list[str]], tmp_path: Path, database_url: str
) -> None:
    key, url, asked = outside
    issuer = "https://login.city.example"
    settings = Settings(
        database_url=database_url, data=tmp_path, oidc_issuer=issuer, oidc_jwks_url=url
    )

    def token(signer: ECKey, **changes: Any) -> str:
        claims = {"iss": issuer, "aud": "chimata", "exp": int(time.time()) + 60, "sub": "op"}
        claims.update({"role": "operator", "scope": "read:account read:shared"} | changes)
        header = {"alg": "ES256", "kid": signer.kid}
        return jwt.encode(header, claims, signer, algorithms=["ES256"])

    other = ECKey.generate_key("P-256", {"kid": "k1"})
    with serving(settings) as running:
        for text, status in (
            (token(key), 200),
            (token(key, iss="chimata"), 401),
            (token(key, iss="https://other.example"), 401),
            (token(key, aud="other"), 401),
            (token(key, exp=int(time.time()) - 3600), 401),
            (token(key, role="mayor"), 401),
            (token(key, role="staff"), 403),
            (token(key, scope="read:shared"), 403),
            (token(other), 401),
        ):
            answer = running.get("/v1/account", headers={"Authorization": f"Bearer {text}"})
            assert answer.status_code == status, (json.dumps(answer.json()), text)
    assert asked == ["/jwks"]


def test_no_sector_is_skipped(api: Served) -> None:
    listed = [s["name"] for s in api.get("/v1/sectors").json()["sectors"]]
    assert listed == list(domains.names())
