"""Accounts in a file: TOML, JSON or CSV, with `${NAME}` from the environment.

    [[users]]
    login = "alice@example.com"
    password = "${ALICE_PASSWORD}"
    env = "stage"
    domain = "regular"
    labels = { role = "admin" }

A CSV file has the same names as its header, and labels as `role=admin;plan=free`.
`$${` stands for a literal `${`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from botfarm_server.api.schemas import UserIn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_VARIABLE = re.compile(r"\$(\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class PoolFileError(Exception):
    """A pool file cannot be used. Each line of the message names file, row, field."""


@dataclass(frozen=True)
class PoolFile:
    """The accounts of a file, and the vocabulary that it sets for an embedded farm."""

    path: Path
    users: Sequence[UserIn]
    rows: Sequence[str] = field(default=())
    """Where each user stands, as a message names it."""
    envs: Sequence[str] | None = None
    domains: Sequence[str] | None = None


def read_pool_file(path: Path, environment: Mapping[str, str]) -> PoolFile:
    """Read and check all rows.

    Raises:
        PoolFileError: with a line for each thing that is wrong.

    """
    document = _read(path)
    if isinstance(document, list):
        document = {"users": document}
    if not isinstance(document, dict):
        raise PoolFileError(f"{path}: a list of users, or a table `users`, is expected")
    unknown = set(document) - {"users", "envs", "domains"}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise PoolFileError(f"{path}: unknown: {names}. Known: users, envs, domains")
    rows = document.get("users")
    if not isinstance(rows, list) or not rows:
        raise PoolFileError(f"{path}: no users; add a [[users]] table for each account")
    return _checked(path, document, rows, environment)


def _checked(
    path: Path,
    document: Mapping[str, Any],
    rows: Sequence[Any],
    environment: Mapping[str, str],
) -> PoolFile:
    problems: list[str] = []
    users: list[UserIn] = []
    names: list[str] = []
    first_row: dict[tuple[str, str], str] = {}
    for number, row in enumerate(rows, start=1):
        name = f"row {number}"
        try:
            user = UserIn.model_validate(_resolved(row, environment))
        except ValidationError as error:
            problems += [
                f"{path}: {name}: {_field(found['loc'])}: "
                f"{found['msg'].removeprefix('Value error, ')}"
                for found in error.errors(include_input=False, include_url=False)
            ]
        except _UnsetVariableError as error:
            problems.append(f"{path}: {name}: {error}")
        else:
            earlier = first_row.setdefault((user.env, user.login), name)
            if earlier != name:
                problems.append(
                    f"{path}: {name}: login: {user.login!r} stands in {earlier} already"
                    f" for env {user.env!r}"
                )
            users.append(user)
            names.append(name)
    vocabulary = {}
    for key in ("envs", "domains"):
        given = document.get(key)
        if given is not None and not _are_names(given):
            problems.append(f"{path}: {key}: a list of names is expected")
        vocabulary[key] = given
    if problems:
        raise PoolFileError("\n".join(problems))
    return PoolFile(path, users, names, vocabulary["envs"], vocabulary["domains"])


def _are_names(given: object) -> bool:
    return (
        isinstance(given, list)
        and bool(given)
        and all(isinstance(name, str) and name for name in given)
    )


def _read(path: Path) -> Any:
    readers: dict[str, Callable[[str], Any]] = {
        ".toml": tomllib.loads,
        ".json": json.loads,
        ".csv": _read_csv,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PoolFileError(f"{path}: the name has to end in .toml, .json or .csv")
    try:
        return reader(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PoolFileError(
            f"{path}: {error.strerror or 'it cannot be read'}"
        ) from None
    except UnicodeDecodeError:
        raise PoolFileError(f"{path}: it is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise PoolFileError(f"{path}: {error}") from None


def _read_csv(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    rows = []
    for row in reader:
        # What stands beyond the header is under None, what is missing is None.
        given: dict[str, Any] = {
            name or "(beyond the header)": cell for name, cell in row.items() if cell
        }
        if "labels" in given:
            pairs = [pair.partition("=") for pair in given["labels"].split(";") if pair]
            given["labels"] = {name.strip(): cell.strip() for name, _, cell in pairs}
        rows.append(given)
    return rows


class _UnsetVariableError(Exception):
    pass


def _resolved(given: Any, environment: Mapping[str, str], where: str = "") -> Any:
    match given:
        case str():
            return _VARIABLE.sub(lambda found: _one(found, environment, where), given)
        case dict():
            return {
                name: _resolved(inner, environment, f"{where}.{name}".lstrip("."))
                for name, inner in given.items()
            }
        case list():
            return [_resolved(inner, environment, where) for inner in given]
        case _:
            return given


def _one(found: re.Match[str], environment: Mapping[str, str], where: str) -> str:
    if found.group(1):
        return "${"
    name = found.group(2)
    if name not in environment:
        raise _UnsetVariableError(
            f"{where}: the environment variable {name} is not set; export it, or "
            "write $${ for a literal ${"
        )
    return environment[name]


def _field(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location) or "the row"
