"""What the OpenAPI document says beyond what FastAPI finds out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import TypeAdapter

from botfarm_server.api.bodies import LARGER
from botfarm_server.api.document import LINKS, DocumentedApp
from botfarm_server.api.examples import EXAMPLES
from botfarm_server.api.schemas.errors import ErrorOut
from botfarm_server.app import create_app
from botfarm_server.settings import fixed_settings


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    settings = {"database_url": f"sqlite:///{tmp_path}/f.db", "envs": "blue,green"}
    return create_app(fixed_settings(settings))


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


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


def test_each_body_has_a_limit_that_is_told(operations: dict[str, Any]) -> None:
    told = {
        name: it["requestBody"]["description"]
        for name, it in operations.items()
        if "requestBody" in it
    }
    assert LARGER.keys() <= told.keys()
    assert told["leases_ask"] == "65536 bytes at most."
    assert told["leases_renew"] == "131072 bytes at most."
    assert told["users_import_all"] == "1048576 bytes at most."


def test_each_link_leads_from_an_answer_to_an_operation(
    operations: dict[str, Any],
) -> None:
    for (source, status), targets in LINKS.items():
        assert operations[source]["responses"][status]["links"].keys() == targets.keys()
        for target, (parameters, body) in targets.items():
            taken = {it["name"] for it in operations[target].get("parameters", [])}
            assert parameters.keys() <= taken
            assert body is None or "requestBody" in operations[target]


def test_each_reference_leads_to_a_component(document: dict[str, Any]) -> None:
    named = re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(document))
    assert ("schemas", "ErrorOut") in named
    for kind, name in named:
        assert name in document["components"][kind], name


def test_the_words_of_the_deployment_are_listed(document: dict[str, Any]) -> None:
    wanted = document["components"]["schemas"]["WantIn"]["properties"]
    assert wanted["env"]["enum"] == ["blue", "green"]
    assert wanted["domain"]["enum"] == ["canary", "regular"]


def test_each_answer_has_examples_of_its_own_shape(
    app: FastAPI, document: dict[str, Any]
) -> None:
    """Each error that an operation names has one, which is an error of that code."""
    shared = document["components"]["examples"]
    for route in iter_route_contexts(app.routes):
        if not route.include_in_schema:
            continue
        for method in route.methods or ():
            answers = document["paths"][route.path][method.lower()]["responses"]
            models = {
                str(it): more.get("model", ErrorOut)
                for it, more in route.responses.items()
            }
            models |= {str(route.status_code or 200): route.response_model}
            for status, model in models.items():
                content = answers[status].get("content", {}).get("application/json", {})
                shown = [content["example"]] if "example" in content else []
                for code in content.get("examples", {}):
                    shown.append(shared[code]["value"])
                    assert shown[-1]["error"] == code
                    assert f"`{code}`" in answers[status]["description"]
                assert bool(shown) == (model is not None), (route.path, status)
                for example in shown:
                    adapter = TypeAdapter(model)
                    told = adapter.validate_json(json.dumps(example))
                    assert example == adapter.dump_python(
                        told, mode="json", exclude_unset=True
                    )


def test_each_parameter_has_an_example(operations: dict[str, Any]) -> None:
    for name, operation in operations.items():
        for parameter in operation.get("parameters", []):
            assert "example" in parameter, (name, parameter["name"])


def test_it_is_encoded_once(app: FastAPI) -> None:
    documented = cast("DocumentedApp", app)
    encoded = documented.encoded_document()
    assert documented.encoded_document() is encoded
    assert json.loads(encoded) == app.openapi()
