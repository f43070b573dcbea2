"""What the steps of CI make of the commands that they run."""

from __future__ import annotations

import importlib.util
import os
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
from support.provided import needs_set_up
from support.waiting import eventually

SPEC = importlib.util.spec_from_file_location(
    "tasks", Path(__file__).parents[2] / "tasks.py"
)
assert SPEC is not None
assert SPEC.loader is not None
tasks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tasks)


def has_ended(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_command_that_takes_too_long_fails_however_it_ends() -> None:
    patient = "trap 'echo cleaned; exit 0' INT; while :; do sleep 0.05; done"
    with pytest.raises(tasks.TaskError, match=r"(?s)cleaned.*took longer than 0 s"):
        tasks.run_quietly(["sh", "-c", patient], limit=0.3)


@pytest.mark.parametrize("code", [0, 3])
def test_nothing_that_a_command_has_started_outlives_it(
    tmp_path: Path, code: int
) -> None:
    command = f"sleep 60 & echo $! > {tmp_path}/started; exit {code}"
    with pytest.raises(tasks.TaskError) if code else nullcontext():
        tasks.run_quietly(["sh", "-c", command], env=dict(os.environ))
    started = int((tmp_path / "started").read_text())
    assert eventually(lambda: has_ended(started))


def test_the_wheel_is_tried_without_what_else_is_on_the_path_of_who_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "a checkout")
    environment = tasks.VersionEnvironment("3.13", "python3.13", "3.13.0")
    assert "PYTHONPATH" not in environment.variables()
    assert tasks.DEVELOPMENT.variables()["PYTHONPATH"] == "a checkout"


def test_what_ci_sets_up_may_be_missing_elsewhere_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "true")
    needs_set_up(".venv-fuzz", is_there=True)
    with pytest.raises(pytest.fail.Exception, match=r"\.venv-fuzz is missing in CI"):
        needs_set_up(".venv-fuzz", is_there=False)
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match=r"python3 tasks\.py test"):
        needs_set_up(".venv-fuzz", is_there=False)
