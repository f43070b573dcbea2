"""What the documents link to exists, and what they tell to run runs.

A console block runs if `<!-- run -->` stands on the line above it; a block below
`<!-- file: NAME -->` is written to that file first. All blocks of one document share a
folder and run in the order in which they stand. A line that begins with `$ ` is a
command, the lines below it are what it may print and are not compared. A command that
ends with `&` is a server: the next one waits until it listens on port 8000, for which
a free port is taken here, and the end of the document ends it.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.documents import BLOCK, write_files
from support.suites import UNUSED, as_users

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
LIMIT = 120.0
"""Seconds that all commands of one document may take together."""

UNTIL_IT_LISTENS = """\
until (exec 3<>/dev/tcp/127.0.0.1/$BOTFARM_PORT) 2>/dev/null
do kill -0 $!; sleep 0.1
done"""

ORDER = re.compile(r"^<!--\s*(run|file)\b.*-->$", re.MULTILINE)
PYTHON = re.compile(r"^(<!-- file: \S+ -->\n+)?`{3,}python$", re.MULTILINE)
CODE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def anchors(document: Path) -> set[str]:
    """The headings as GitHub turns them into anchors."""
    text = CODE.sub(lambda m: m[0] if m[1] is None else "", document.read_text())
    titles = (match["title"].lower() for match in HEADING.finditer(text))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def broken_links(document: Path) -> Iterator[str]:
    for match in LINK.finditer(CODE.sub("", document.read_text())):
        target = match["target"]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            yield target


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    assert not list(broken_links(document))


def runs_something(document: Path) -> bool:
    return any(
        block["order"] == "run" for block in BLOCK.finditer(document.read_text())
    )


def commands(text: str) -> list[str]:
    return [line[2:] for line in text.splitlines() if line.startswith("$ ")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def script(document: Path, folder: Path) -> str:
    """Write the document's files, and put its commands into one script."""
    lines = [
        "set -euo pipefail",
        "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT",
    ]
    write_files(document, folder)
    for block in BLOCK.finditer(document.read_text()):
        if not block["name"]:
            asked = commands(block["text"])
            assert asked, f"nothing to run in:\n{block['text']}"
            for command in asked:
                lines += [f"echo '$' {shlex.quote(command)}", command]
                if command.endswith("&"):
                    lines.append(UNTIL_IT_LISTENS)
    return "\n".join(lines)


@every_document
def test_orders_stand_above_a_block(document: Path) -> None:
    text = document.read_text()
    assert len(ORDER.findall(text)) == len(BLOCK.findall(text))


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/*.md")), ids=name_of)
def test_all_python_of_a_page_is_in_files_that_are_run(document: Path) -> None:
    assert all(match[1] for match in PYTHON.finditer(document.read_text()))


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if runs_something(path)],
    ids=name_of,
)
def test_commands_run_as_written(document: Path, tmp_path: Path) -> None:
    port = str(free_port())
    needed = [name for name in UNUSED if f"mark.{name}" in document.read_text()]
    foreign = ("BOTFARM_", "DATABASE_URL", "PYTEST_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-c", script(document, tmp_path).replace(":8000", f":{port}")],
        cwd=tmp_path,
        env={**env, **as_users(*needed), "BOTFARM_PORT": port},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        printed, _ = shell.communicate(timeout=LIMIT)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, printed
