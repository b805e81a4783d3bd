"""Acting on rejections over HTTP: operators alone, each act once, and as the document says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from core.settings import Settings
from core.tokens import Role
from ingest import rejections
from ingest.mending import Mender
from tests.api.conftest import Served, served_with
from tests.api.test_schema import CHECKS
from tests.ingest.test_mending import Town, body, send_broken


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    settings = Settings(database_url=database_url, data=tmp_path, body_bytes_max=1000)
    with served_with(settings, rejections.router(settings)) as running:
        yield running


@pytest.fixture
def town(served: Served) -> Town:
    return Town(served.database_url, served.data)


def post(
    served: Served, path: str, role: Role | None = Role.OPERATOR, **more: Any
) -> httpx.Response:
    return served.client.post(
        f"{served.url}/v1/rejections/{path}", headers=served.as_role(role), **more
    )


def test_replay_fix_and_discard(served: Served, town: Town) -> None:
    one, two, three = send_broken(town, body(1), body(2), body(3))
    done = post(served, f"{one}/replay")
    assert done.status_code == 200, done.text
    assert done.json() == {
        "id": one, "act": "replay", "state": "replayed", "stored": 1, "duplicate": 0, "rejected": 0,
    }  # fmt: skip
    again = post(served, f"{one}/replay")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/conflict")
    assert post(served, f"{two}/fix?reason=typo", content=b"[").status_code == 422
    assert post(served, f"{two}/fix", content=body(1)).status_code == 422
    fixed = post(served, f"{two}/fix?reason=typo", content=body(1))
    assert (fixed.status_code, fixed.json()["duplicate"]) == (200, 1)
    assert post(served, f"{three}/discard").status_code == 422
    assert post(served, f"{three}/discard?reason=%20").status_code == 422
    dropped = post(served, f"{three}/discard?reason=a%00%ff")
    assert (dropped.status_code, dropped.json()["state"]) == (200, "discarded")
    assert post(served, "999/replay").status_code == 404
    assert town.counts() == (5, 1, 1, 3, 2)
    history = served.get(f"/v1/rejections/{two}", Role.OPERATOR).json()
    assert [(act["act"], act["done"], act["who"]) for act in history["history"]] == [
        ("fix", True, "operator s"), ("fix", False, "operator s"),
    ]  # fmt: skip
    assert history["history"][0]["reason"] == "typo"
    assert history["corrected"]["text"] == body(1).decode()


@pytest.mark.parametrize("act", ["replay", "fix?reason=r", "discard?reason=r"])
@pytest.mark.parametrize(
    ("role", "status"),
    [(None, 401), (Role.GATEWAY, 403), (Role.STAFF, 403), (Role.CITIZEN, 403)],
)
def test_others_may_not_act(
    served: Served, town: Town, act: str, role: Role | None, status: int
) -> None:
    (one,) = send_broken(town, body(1))
    assert post(served, f"{one}/{act}", role).status_code == status
    assert town.ids() == [one]
    assert town.acts() == []


def test_a_body_over_the_limit_is_not_read(served: Served, town: Town) -> None:
    (one,) = send_broken(town, body(1))
    assert post(served, f"{one}/fix?reason=r", content=b"x" * 2000).status_code == 413


def test_a_sealed_one_is_not_for_the_api(served: Served, town: Town) -> None:
    (one,) = send_broken(town, body(1))
    town_key = Mender(town.settings)._keeping.key
    assert town_key is not None, "the machine has the key, and its API does not use it"
    with psycopg.connect(served.database_url) as owner:
        owner.execute("UPDATE rejection SET sealed = true, data_class = 'personal'")
    for act in ("replay", "fix?reason=r", "discard?reason=r"):
        answer = post(served, f"{one}/{act}")
        assert answer.status_code == 403
        assert "soil" not in answer.text
    assert town.ids() == [one]


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_keeps_its_word(served: Served, town: Town, mode: GenerationMode) -> None:
    send_broken(town, *(body(number) for number in range(20)))
    described = schemathesis.openapi.from_url(served.url + "/openapi.json")
    headers = served.as_role(Role.OPERATOR)
    # A request that is bad for want of a token is given one here, and is good.
    checks = [check for check in CHECKS if check is not negative_data_rejection]
    ours = described.include(path_regex="^/v1/rejections")
    found = [each.ok() for each in ours.get_all_operations()]
    assert len(found) == 7
    for operation in found:

        @hypothesis_settings(
            max_examples=25,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps_its_word(case: Case[Any]) -> None:
            case.call_and_validate(checks=checks, timeout=20, headers=headers)

        keeps_its_word()
    town.counts()
