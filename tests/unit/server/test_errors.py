"""Every refusal is a documented HTTP answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from botfarm_server.api.errors import STATUS
from botfarm_server.app import create_app
from botfarm_server.domain.errors import (
    BotfarmError,
    NotFoundError,
    UnavailableError,
)
from botfarm_server.settings import fixed_settings

PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"
ABSTRACT = {NotFoundError, UnavailableError}


def all_errors(root: type[BotfarmError] = BotfarmError) -> Iterator[type[BotfarmError]]:
    for error in root.__subclasses__():
        yield error
        yield from all_errors(error)


@pytest.mark.parametrize("error", sorted(set(all_errors()) - ABSTRACT, key=repr))
def test_each_error_has_a_status_and_is_documented(error: type[BotfarmError]) -> None:
    assert error in STATUS
    line = next(
        it for it in PROTOCOL.read_text().splitlines() if f"`{error.code}`" in it
    )
    assert line.startswith(f"| {STATUS[error]} |")


def test_each_endpoint_of_the_document_names_its_errors(tmp_path: Path) -> None:
    app = create_app(fixed_settings({"database_url": f"sqlite:///{tmp_path}/f.db"}))
    for path, methods in app.openapi()["paths"].items():
        if path.startswith("/api/"):
            for method, operation in methods.items():
                assert {
                    *("401", "403", "408", "413", "415", "422", "429", "500", "503")
                } <= set(operation["responses"]), (method, path)
                assert operation["summary"]
