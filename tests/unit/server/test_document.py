"""What the OpenAPI document says beyond what FastAPI finds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from botfarm_server.api.document import LINKS
from botfarm_server.api.examples import EXAMPLES
from botfarm_server.app import create_app
from botfarm_server.settings import fixed_settings


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    settings = {"database_url": f"sqlite:///{tmp_path}/f.db", "envs": "blue,green"}
    return create_app(fixed_settings(settings)).openapi()


@pytest.fixture
def operations(document: dict[str, Any]) -> dict[str, Any]:
    return {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
    }


def test_each_body_has_an_example(operations: dict[str, Any]) -> None:
    with_body = {name for name, it in operations.items() if "requestBody" in it}
    assert with_body == set(EXAMPLES)


def test_each_link_leads_from_an_answer_to_an_operation(
    operations: dict[str, Any],
) -> None:
    for (source, status), targets in LINKS.items():
        assert operations[source]["responses"][status]["links"].keys() == targets.keys()
        for target, (parameters, body) in targets.items():
            taken = {it["name"] for it in operations[target].get("parameters", [])}
            assert parameters.keys() <= taken
            assert body is None or "requestBody" in operations[target]


def test_the_words_of_the_deployment_are_listed(document: dict[str, Any]) -> None:
    wanted = document["components"]["schemas"]["WantIn"]["properties"]
    assert wanted["env"]["enum"] == ["blue", "green"]
    assert wanted["domain"]["enum"] == ["canary", "regular"]
