"""What can be set, called and watched is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from botfarm_server.app import create_app
from botfarm_server.domain.census import Census
from botfarm_server.settings import Settings, environment_name, fixed_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "metrics.md").read_text()


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


def test_every_metric_is_documented_and_alerts_name_no_other(tmp_path: Path) -> None:
    app = create_app(fixed_settings({"database_url": f"sqlite:///{tmp_path}/f.db"}))
    told = app.state.botfarm.metrics.exposition(Census(), None).decode()
    exposed = set(re.findall(r"^# TYPE (botfarm_\w+)", told, re.MULTILINE))
    rows = re.findall(r"^\| `(botfarm_\w+)`", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(exposed)
    assert set(re.findall(r"botfarm_\w+", PAGE)) == exposed

    scraping, alerting = map(
        yaml.safe_load,
        re.findall(r"^```yaml\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL),
    )
    [job], [group] = scraping["scrape_configs"], alerting["groups"]
    assert {"authorization", "static_configs"} < job.keys()
    assert len(group["rules"]) == 3
    for rule in group["rules"]:
        assert rule.keys() >= {"alert", "expr", "annotations"}
