"""What documents have tests do: files to write, and commands to run."""

from __future__ import annotations

import re
from pathlib import Path

BLOCK = re.compile(
    r"^<!-- (?P<order>run|file: (?P<name>\S+)) -->\n+"
    r"^(?P<fence>`{3,})\w*\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


def write_files(document: Path, folder: Path) -> None:
    """Write what stands below `<!-- file: NAME -->` to that file."""
    for block in BLOCK.finditer(document.read_text()):
        if block["name"]:
            file = folder / block["name"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["text"])
