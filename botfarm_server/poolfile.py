"""Accounts in a file: TOML, JSON or CSV, with `${NAME}` from the environment.

    [[users]]
    login = "alice@example.com"
    password = "${ALICE_PASSWORD}"
    env = "stage"
    domain = "regular"
    labels = { role = "admin" }

A CSV file has the same names as its header, and labels as `role=admin;plan=free` or
in columns of their own, `labels.role`. `$${` stands for a literal `${`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from botfarm_server.api.schemas.users import UserIn
from botfarm_server.poolrows import Row, UnreadableError, read_document

_VARIABLE = re.compile(r"\$(\$\{)|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")
_INDEXED_IN_TEXT = re.compile(r"users\[(\d+)\]")
_INDEXED = re.compile(r"users\[(\d+)\]\.?(.*)", re.DOTALL)


@dataclass(frozen=True)
class PoolFile:
    """The accounts of a file, and the vocabulary that it sets for an embedded farm."""

    path: Path
    users: Sequence[UserIn]
    rows: Sequence[str] = field(default=())
    """Where each user stands, as a message names it."""
    envs: Sequence[str] | None = None
    domains: Sequence[str] | None = None

    def located(
        self, errors: Sequence[tuple[str, str]], indices: Sequence[int]
    ) -> list[str]:
        """Tell what the server refused of some of the users in the file's own terms.

        `errors` are pairs of field and message, as `users[3].env`, and `indices` say
        which users the request held.
        """
        lines = []
        for name, message in errors:
            found = _INDEXED.fullmatch(name)
            if found is None or int(found[1]) >= len(indices):
                lines.append(f"{self.path}: {name}: {message}")
                continue
            row = self.rows[indices[int(found[1])]]
            # The server counts within the request, which nobody has seen.
            why = _INDEXED_IN_TEXT.sub(
                lambda other: self.rows[indices[int(other[1])]], message
            )
            lines.append(f"{self.path}: {row}: {found[2] or 'the row'}: {why}")
        return lines


class PoolFileError(Exception):
    """A pool file cannot be used. Each line of the message names file, row, field."""

    def __init__(self, message: str, good: PoolFile | None = None) -> None:
        super().__init__(message)
        self.good = good
        """The rows with which nothing is wrong by themselves, if there are any."""


def read_pool_file(path: Path, environment: Mapping[str, str]) -> PoolFile:
    """Read and check all rows.

    Raises:
        PoolFileError: with a line for each thing that is wrong.

    """
    try:
        document, rows = read_document(path)
    except UnreadableError as error:
        raise PoolFileError(f"{path}: {error}") from None
    problems = list(_vocabulary_problems(document))
    users: list[UserIn] = []
    names: list[str] = []
    first_row: dict[tuple[str, str], str] = {}
    for row in rows:
        checked = _check(row, environment)
        if isinstance(checked, UserIn):
            earlier = first_row.setdefault((checked.env, checked.login), row.name)
            if earlier == row.name:
                users.append(checked)
                names.append(row.name)
                continue
            checked = [("login", f"{earlier} has the same login for the same env")]
        problems += (f"{row.name}: {name}: {why}" for name, why in checked)
    pool = PoolFile(path, users, names, document.get("envs"), document.get("domains"))
    if problems:
        message = "\n".join(f"{path}: {problem}" for problem in problems)
        raise PoolFileError(message, pool if users else None)
    return pool


def problems_of(error: ValidationError) -> list[tuple[str, str]]:
    """Field and sentence for each thing that is wrong with a user, never its value."""
    problems = []
    for found in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in found["loc"]) or "the row"
        match found["type"]:
            case "missing":
                why = "is missing"
            case "extra_forbidden":
                why = (
                    f"is no field of a user; known are {', '.join(UserIn.model_fields)}"
                )
            case "model_type":
                why = "a table of fields is expected"
            case _:
                why = found["msg"].removeprefix("Value error, ")
        problems.append((name, why))
    return problems


def _vocabulary_problems(document: Mapping[str, Any]) -> Iterator[str]:
    for key in ("envs", "domains"):
        given = document.get(key)
        if given is not None and not (
            isinstance(given, list)
            and given
            and all(isinstance(name, str) and name for name in given)
        ):
            yield f"{key}: a list of names is expected"


def _check(row: Row, environment: Mapping[str, str]) -> UserIn | list[tuple[str, str]]:
    """The user of a row, or field and sentence for each thing that is wrong."""
    problems = list(row.problems)
    resolved = _resolved(row.fields, environment, "", problems)
    unresolved = {name.partition(".")[0] for name, _ in problems}
    try:
        user = UserIn.model_validate(resolved)
    except ValidationError as error:
        problems += (
            (name, why)
            for name, why in problems_of(error)
            if name.partition(".")[0] not in unresolved
        )
        return problems
    return problems or user


def _resolved(
    given: Any,
    environment: Mapping[str, str],
    where: str,
    problems: list[tuple[str, str]],
) -> Any:
    """`given` with its `${NAME}` replaced; what cannot be is added to `problems`."""

    def replace(found: re.Match[str]) -> str:
        if found[1]:
            return "${"
        name = found[2]
        if name is None:
            why = "`${` stands before no NAME}; write $${ for a literal ${"
        elif name not in environment:
            why = f"the environment variable {name} is not set; export it, or write "
            why += "$${ for a literal ${"
        else:
            return environment[name]
        problems.append((where or "the row", why))
        return ""

    match given:
        case str():
            return _VARIABLE.sub(replace, given)
        case dict():
            return {
                name: _resolved(
                    inner, environment, f"{where}.{name}".lstrip("."), problems
                )
                for name, inner in given.items()
            }
        case list():
            return [_resolved(inner, environment, where, problems) for inner in given]
        case _:
            return given
