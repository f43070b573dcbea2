"""What can be set and called stands in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from botfarm_server.app import create_app
from botfarm_server.settings import Settings, environment_name, fixed_settings

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_of_the_server_is_documented(name: str) -> None:
    default = Settings.model_fields[name].default
    shown = ",".join(default) if isinstance(default, tuple) else default
    row = next(
        it
        for it in README.splitlines()
        if it.startswith(f"| `{environment_name(name)}`")
    )
    assert (f"`{shown}`" if shown not in {"", None} else "none") in row
    assert str(Settings.model_fields[name].description) in row


def test_every_endpoint_is_documented(tmp_path: Path) -> None:
    app = create_app(fixed_settings({"database_url": f"sqlite:///{tmp_path}/f.db"}))
    for path in app.openapi()["paths"]:
        told = re.sub(r"\{\w+_id\}", "{id}", path)
        last = told.rsplit("/", 1)[-1]
        assert f"{told}" in README or f"…/{last}`" in README, path
