"""Short runs of the whole program, and the plan that its seed draws."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from .plan import KINDS, draw, kinds_for
from .run import main, parse, plan_of

PROGRAM = Path(__file__).with_name("run.py")
LIMIT = 240.0
"""Seconds, for a machine that does much else; a run here takes a tenth of it."""


def run(*arguments: str) -> str:
    """What a run prints that found no violation."""
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ},
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.mark.parametrize(
    "options",
    [
        "--database postgresql --seconds 8 --servers 2 --rate 2",
        "--database sqlite --seconds 8 --servers 2 --rate 2",
    ],
    ids=["postgresql", "sqlite"],
)
def test_a_mixed_run_finds_no_violation(options: str) -> None:
    small = "--clients 2 --workers 6 --users 12 --warm-up 30 --longest-wait 5"
    # There are users for all, so that it may be that nobody has to wait.
    counts = "--under-faults 9"
    told = run("--seed", "1", *options.split(), *small.split(), *counts.split())
    assert re.search(r"^violations +0$", told, re.MULTILINE)
    assert int(re.findall(r"^faults +(\d+)$", told, re.MULTILINE)[0]) >= 5


def test_a_seed_draws_the_same_plan_again() -> None:
    options = ["--seed", "7", "--seconds", "100"]
    plan = plan_of(parse(options))
    assert plan == plan_of(parse(options))
    assert plan != plan_of(parse(["--seed", "8", "--seconds", "100"]))
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_a_plan_has_each_kind_that_the_database_can_suffer(database: str) -> None:
    plan = plan_of(parse(["--seed", "1", "--seconds", "100", "--database", database]))
    can_suffer = {k for k, kind in KINDS.items() if kind.only in {None, database}}
    assert {fault.kind for fault in plan} == can_suffer


def test_each_kind_of_fault_can_be_had_on_its_own() -> None:
    for name in kinds_for("postgresql", None):
        given = parse(["--seed", "1", "--faults", name])
        assert {fault.kind for fault in plan_of(given)} == {name}
        assert not given.failpoints
    alone = parse(["--seed", "1", "--faults", "failpoints"])
    assert alone.failpoints
    assert plan_of(alone) == []


def test_each_kind_has_a_time_of_its_own_before_all_are_mixed() -> None:
    options = ["--seed", "1", "--seconds", "20", "--each", "5", "--rate", "2"]
    alone = plan_of(parse(options))[: -len(plan_of(parse([*options, "--each", "0"])))]
    kinds = kinds_for("postgresql", None)
    assert list(dict.fromkeys(fault.kind for fault in alone)) == kinds
    for before, after in pairwise(alone):
        if before.kind != after.kind:
            assert after.at >= before.at + before.seconds
    numbers = [fault.number for fault in plan_of(parse(options))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_no_faults_are_an_empty_plan() -> None:
    assert plan_of(parse(["--faults", "none"])) == []
    assert draw(1, kinds=[], seconds=9, rate=1, servers=1, clients=1) == []


def test_an_unknown_fault_is_refused_by_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--faults", "earthquake"])
    assert ended.value.code == 2
    assert "earthquake" in capsys.readouterr().err


def test_a_plan_can_be_looked_at_without_a_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seed", "7", "--seconds", "20", "--plan"]) == 0
    assert capsys.readouterr().out.count('"kind"') >= 5


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert main(["--folder", str(tmp_path)]) == 2
