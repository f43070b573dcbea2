"""The rows of a pool file as they stand there, each with the name of its place."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botfarm_server.api.schemas.users import UserIn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_USERS_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*users[ \t]*\]\]", re.MULTILINE)
_KNOWN = ("users", "envs", "domains")
_NESTED = ("labels", "secrets")


class UnreadableError(Exception):
    """The file as a whole cannot be read; the message says why, without its name."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    """`row 3 (line 14)`, as a message names it."""
    fields: Any = field(repr=False)
    problems: Sequence[tuple[str, str]] = ()
    """Field and sentence for what the form of the row alone shows to be wrong."""


def read_document(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The file's top level, and its rows: one at least.

    Raises:
        UnreadableError: it is missing, is not what its name says, or lists nobody.

    """
    text = _read(path)
    document: Any
    lines: list[int] = []
    try:
        match path.suffix.lower():
            case ".toml":
                document = tomllib.loads(text)
                lines = _header_lines(text)
            case ".json":
                document = json.loads(text)
            case ".csv":
                document = {"users": list(_csv_rows(text))}
            case _:
                raise UnreadableError("the name has to end in .toml, .json or .csv")
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise UnreadableError(str(error)) from None
    except RecursionError:
        raise UnreadableError("it is nested too deeply") from None
    if isinstance(document, list):
        document = {"users": document}
    if not isinstance(document, dict):
        raise UnreadableError("a list of users, or a table `users`, is expected")
    unknown = set(document) - set(_KNOWN)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise UnreadableError(f"unknown: {names}. Known: {', '.join(_KNOWN)}")
    given = document.get("users")
    if not isinstance(given, list) or not given:
        raise UnreadableError(
            "no users; add a [[users]] table, or a row, for each account"
        )
    return document, _named(given, lines)


def _named(given: Sequence[Any], lines: Sequence[int]) -> list[Row]:
    if isinstance(given[0], Row):
        return list(given)
    if len(lines) != len(given):
        # `users = [{…}, …]`, or the header within a text: the lines say nothing.
        return [Row(f"row {number}", it) for number, it in enumerate(given, start=1)]
    return [
        Row(f"row {number} (line {line})", it)
        for number, (line, it) in enumerate(zip(lines, given, strict=True), start=1)
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UnreadableError(error.strerror or "it cannot be read") from None
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8 text") from None


def _header_lines(text: str) -> list[int]:
    lines, at = [], 0
    number = 1
    for found in _USERS_HEADER.finditer(text):
        number += text.count("\n", at, found.start())
        at = found.start()
        lines.append(number)
    return lines


def _csv_rows(text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        number, line = 0, reader.line_num + 1
        for cells in reader:
            if any(cells):
                number += 1
                yield _csv_row(f"row {number} (line {line})", header, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise UnreadableError(f"line {reader.line_num}: {error}") from None


def _check_header(header: Sequence[str]) -> None:
    known = list(UserIn.model_fields)
    unknown = [
        name
        for name in header
        if name not in known
        and not (name.partition(".")[0] in _NESTED and name.partition(".")[2])
    ]
    missing = [
        name
        for name, info in UserIn.model_fields.items()
        if info.is_required() and name not in header
    ]
    twice = [name for name, count in Counter(header).items() if count > 1]
    for names, what in (
        (unknown, f"no columns of a user (those are {', '.join(known)}, labels.NAME)"),
        (missing, "missing"),
        (twice, "there twice"),
    ):
        if names:
            # A file without a header has an account in its first line: not shown.
            told = "some names" if names is unknown and missing else ", ".join(names)
            raise UnreadableError(f"line 1 is to name the columns: {told}: {what}")


def _csv_row(name: str, header: Sequence[str], cells: Sequence[str]) -> Row:
    fields: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    if len(cells) > len(header):
        problems.append(("the row", "it has more cells than the header has names"))
    # An empty cell is a field that is not given.
    for column, cell in zip(header, cells, strict=False):
        first, dot, inner = column.partition(".")
        if not cell:
            continue
        if dot:
            fields.setdefault(first, {})[inner] = cell
        elif column in _NESTED:
            fields.setdefault(column, {}).update(_pairs(column, cell, problems))
        else:
            fields[column] = cell
    return Row(name, fields, problems)


def _pairs(column: str, cell: str, problems: list[tuple[str, str]]) -> dict[str, str]:
    pairs = {}
    for pair in filter(None, cell.split(";")):
        name, equals, text = pair.partition("=")
        if not equals:
            problems.append((column, "is to be written as name=value;name=value"))
        pairs[name.strip()] = text.strip()
    return pairs
