"""What an installation of `pytest-botfarm[server]` brings.

`components.py licences` writes docs/licences.md anew. `components.py sbom FOLDER` puts
a CycloneDX document beside the wheel in a folder. Both describe the environment that
runs this: it has the versions of constraints.txt.
"""

import hashlib
import json
import re
import sys
import uuid
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "licences.md"
PROJECT = "pytest-botfarm"
EXTRAS = ("server",)
PERMITTED = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0"),
        # It asks that changes of certifi's own files be published.
        "MPL-2.0",
        *("PSF-2.0", "Unlicense"),
    }
)
"""Under any of these a company may run and change the server, and keep that private."""
SPDX = {
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""How packages that do not know SPDX name their licences."""
HEADING = "| package | licence |\n|---|---|\n"
ROW = re.compile(r"^\| ([\w.-]+) \| ([^|]+) \|$", re.MULTILINE)


@dataclass
class Component:
    name: str
    version: str
    licence: str
    needs: set[str] = field(default_factory=set)

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def components(root: Distribution) -> dict[str, Component]:
    """A distribution and all that it needs on this Python, by name."""
    found: dict[str, Component] = {}
    ahead: list[tuple[Distribution, tuple[str, ...]]] = [(root, EXTRAS)]
    seen = set()
    while ahead:
        package, extras = ahead.pop()
        name = canonicalize_name(package.metadata["Name"])
        known = found.setdefault(
            name, Component(name, package.version, licence_of(package))
        )
        for needed in needs(package, extras):
            known.needs.add(canonicalize_name(needed.name))
            if (step := (known.name, str(needed))) not in seen:
                seen.add(step)
                ahead.append((distribution(needed.name), tuple(needed.extras)))
    return found


def needs(package: Distribution, extras: Iterable[str]) -> list[Requirement]:
    every = [Requirement(text) for text in package.requires or ()]
    return [
        it
        for it in every
        if it.marker is None
        or any(it.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def licence_of(package: Distribution) -> str:
    """As an SPDX expression, or whatever the package says of itself."""
    told = package.metadata
    if "License-Expression" in told:
        return told["License-Expression"]
    classified = [
        text.rpartition(" :: ")[2]
        for text in told.get_all("Classifier") or ()
        if text.startswith("License ::")
    ]
    named = classified or told.get_all("License") or ["unknown"]
    return " AND ".join(sorted(SPDX.get(it, it) for it in named))


def is_permitted(licence: str) -> bool:
    """Whether all that apply at once are; of alternatives, one is enough."""
    alternatives = [part.split(" AND ") for part in licence.split(" OR ")]
    return any(PERMITTED.issuperset(alternative) for alternative in alternatives)


def listed() -> dict[str, str]:
    table = PAGE.read_text(encoding="utf-8").partition(HEADING)[2]
    return dict(ROW.findall(table))


def installed() -> dict[str, str]:
    """The licences of all that comes with the project."""
    every = components(distribution(PROJECT))
    return {it.name: it.licence for it in every.values() if it.name != PROJECT}


def write_page() -> None:
    """What other Pythons need keeps its row as long as it is pinned."""
    pinned = (ROOT / "constraints.txt").read_text()
    rows = {name: it for name, it in listed().items() if f"\n{name}==" in pinned}
    rows |= installed()
    text = PAGE.read_text(encoding="utf-8").partition(HEADING)[0] + HEADING
    text += "".join(f"| {name} | {rows[name]} |\n" for name in sorted(rows))
    PAGE.write_text(text, encoding="utf-8")


def sbom(wheel: Path) -> dict[str, Any]:
    """A CycloneDX document: the wheel, and what it brings where it is installed."""
    with zipfile.ZipFile(wheel) as archive:
        (info,) = [
            it for it in zipfile.Path(archive).iterdir() if ".dist-info" in it.name
        ]
        every = components(PathDistribution(info))
    described = {name: _described(it) for name, it in every.items()}
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    this = described.pop(PROJECT)
    this |= {"type": "application", "hashes": [{"alg": "SHA-256", "content": digest}]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}",
        "version": 1,
        "metadata": {"component": this},
        "components": [described[name] for name in sorted(described)],
        "dependencies": [
            {
                "ref": every[name].purl,
                "dependsOn": sorted(every[it].purl for it in every[name].needs),
            }
            for name in sorted(every)
        ],
    }


def _described(it: Component) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": it.purl,
        "name": it.name,
        "version": it.version,
        "purl": it.purl,
        "licenses": [{"expression": it.licence}],
    }


def main() -> None:
    match sys.argv[1:]:
        case ["licences"]:
            write_page()
        case ["sbom", folder]:
            wheel = max(Path(folder).glob("*.whl"), key=lambda it: it.stat().st_mtime)
            document = json.dumps(sbom(wheel), indent=2)
            wheel.with_suffix(".cdx.json").write_text(document)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
