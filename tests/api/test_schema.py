"""The API against its own OpenAPI document: generated requests, valid and not (schemathesis)."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from core.tokens import Role
from tests.api.city import SECOND, START, City, Observed
from tests.api.conftest import Served

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
SSE = "text/event-stream"
"""What never ends: tests/api/test_live.py and test_consent_channels.py have it."""


@pytest.fixture(scope="module")
def described(module_served: Served) -> Iterator[OpenApiSchema]:
    """The schema of a served city that has one of everything."""
    with psycopg.connect(module_served.database_url, autocommit=True) as connection:
        city = City(connection)
        thing = city.thing("ports", "431000001", at=(139.65, 35.45), heard=START)
        heading = city.datastream(thing, "heading", unit="deg")
        position = city.datastream(thing, "position", "position")
        rows: list[Observed] = [(heading, START + i * SECOND, float(i)) for i in range(20)]
        city.append("ports", [*rows, (position, START, (139.65, 35.45, 1.0, 2.0))])
        recipient = {"title_ja": "だれか", "title_en": "Someone", "country": "JP"}
        operator = module_served.as_role(Role.OPERATOR)
        path = module_served.url + "/v1/recipients/s"  # whom the tokens speak for
        assert module_served.client.put(path, headers=operator, json=recipient).is_success
    schema = schemathesis.openapi.from_url(module_served.url + "/openapi.json")
    # The test sends tokens of its own; a parameter that nobody declared is passed over.
    schema.config.generation.update(with_security_parameters=False)
    schema.config.generation.allow_extra_parameters = False
    # What is over the limit of a body is refused before it is read.
    refusals = schema.config.checks.negative_data_rejection
    refusals.expected_statuses = [*refusals.expected_statuses, "413"]
    yield schema


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_keeps_its_word(
    module_served: Served, described: OpenApiSchema, mode: GenerationMode
) -> None:
    """25 requests an operation, valid ones and not, of anybody: the document allows each answer."""
    tokens = [{}, *(module_served.as_role(role) for role in Role)]
    found = list(described.get_all_operations())
    operations = [each.ok() for each in found if isinstance(each, Ok)]
    assert len(operations) == len(found)
    assert len(operations) >= 8
    for operation in operations:
        if SSE in operation.definition.raw["responses"].get("200", {}).get("content", {}):
            continue

        @settings(
            max_examples=25,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), token=st.sampled_from(tokens))
        def keeps_its_word(case: Case[Any], token: dict[str, str]) -> None:
            case.call_and_validate(checks=CHECKS, timeout=20, headers=token)

        try:
            keeps_its_word()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # an operation without fields has no bad ones
