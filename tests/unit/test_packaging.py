"""The files around the code agree with each other."""

from __future__ import annotations

import re
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["server"],
    *chain.from_iterable(PROJECT["dependency-groups"].values()),
]


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
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
