"""The files around the code agree with each other."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["server"],
    *(
        dependency
        for dependency in chain.from_iterable(PROJECT["dependency-groups"].values())
        if isinstance(dependency, str)  # and no name of another group
    ),
]

SPEC = importlib.util.spec_from_file_location("components", ROOT / ".ci/components.py")
assert SPEC is not None
assert SPEC.loader is not None
components = importlib.util.module_from_spec(SPEC)
sys.modules["components"] = components  # where dataclasses look for their module
SPEC.loader.exec_module(components)

OLDEST = "tests/compatibility/oldest.txt"


def pins(file: str = "constraints.txt") -> list[Requirement]:
    lines = (ROOT / file).read_text().splitlines()
    return [Requirement(line) for line in lines if re.match(r"\w", line)]


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_every_dependency_is_pinned_to_a_version_that_it_allows(
    dependency: str,
) -> None:
    wanted = Requirement(dependency)
    name = canonicalize_name(wanted.name)
    pinned = [pin for pin in pins() if canonicalize_name(pin.name) == name]

    assert pinned, "run: python3 tasks.py constraints"
    for pin in pinned:
        (version,) = pin.specifier
        assert version.operator == "=="
        assert wanted.specifier.contains(version.version)


def test_what_tests_import_is_there_on_every_python() -> None:
    """Not by way of a tool that only those who develop have."""
    group = map(Requirement, PROJECT["dependency-groups"]["test"])
    brought = {components.PROJECT, *components.listed()}
    brought |= {canonicalize_name(dependency.name) for dependency in group}
    providers = packages_distributions()
    imported = {
        module
        for path in (ROOT / "tests").rglob("*.py")
        if path.parent.name != "fuzz"
        for module in re.findall(
            r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE
        )
    }

    assert "psutil" in imported
    assert not [
        module
        for module in imported & providers.keys()
        if not brought & {*map(canonicalize_name, providers[module])}
    ]


def test_the_constraints_name_no_registry_and_no_folder() -> None:
    text = (ROOT / "constraints.txt").read_text()

    assert "://" not in text
    assert "--" not in text
    assert not re.search(r"(^|\s)/", text)


def test_what_the_environment_example_names_is_what_compose_asks_for() -> None:
    offered = re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    asked = re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text())

    assert set(offered) == set(asked)


def test_the_manifests_name_the_image_of_this_version() -> None:
    version = re.search(
        r'"(.+)"', (ROOT / "pytest_botfarm" / "_version.py").read_text()
    )
    images = re.findall(
        r"image: botfarm:(\S+)", (ROOT / "k8s" / "botfarm.yaml").read_text()
    )

    assert version
    assert set(images) == {version[1]}


def test_what_was_run_beside_is_told_with_the_versions_that_were_run() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    rows = "\n".join(
        row.split("|")[1] for row in re.findall(r"^\|.*", text, re.MULTILINE)
    )
    told = re.findall(r"([\w-]+)(?:\]\(.*?\))? (\d[\d.]+)(?: and (\d[\d.]+))?", rows)
    run = {(pin.name, str(pin.specifier)[2:]) for pin in [*pins(), *pins(OLDEST)]}

    assert len(told) > 20
    for name, *versions in told:
        assert {(name.lower(), version) for version in versions if version} <= run


def test_the_oldest_versions_that_are_run_are_those_that_the_project_allows() -> None:
    oldest = {pin.name: str(pin.specifier) for pin in pins(OLDEST)}
    for dependency in PROJECT["project"]["dependencies"]:
        allowed = Requirement(dependency)
        (run,) = Requirement(f"{allowed.name}{oldest[allowed.name]}").specifier
        (lowest,) = allowed.specifier
        assert lowest.operator == ">="
        assert Version(run.version) == Version(lowest.version)


def test_the_licences_of_all_that_is_installed_are_listed_and_permitted() -> None:
    installed, listed = components.installed(), components.listed()

    assert len(installed) > 30
    assert installed.items() <= listed.items(), "run: python3 tasks.py licences"
    assert [it for it in listed.values() if not components.is_permitted(it)] == []
    assert not components.is_permitted("MIT AND GPL-3.0-only")


def test_github_runs_everything_on_each_supported_python() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    job = yaml.safe_load(text)["jobs"]["everything"]
    supported = re.findall(r"Python :: (3\.\d+)", str(PROJECT["project"]))

    assert job["strategy"]["matrix"]["python"] == supported
    assert job["steps"][-1]["run"] == "bash .ci/run"
