"""How long the first lease of a run takes in embedded mode, server start included.

One test asks for one account and measures how long it takes: cold, over a new state
directory, and warm, in a second run over the same. The unit is a bare Python that
imports the three libraries on which the server stands, in the same round.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from shutil import rmtree

from _measuring import (
    PYTEST,
    folder,
    median,
    milliseconds,
    quartiles,
    rounds,
    run,
    table,
    write_pool,
)

ROUNDS = 9
UNIT = "import fastapi, sqlalchemy.ext.asyncio, uvicorn"
IMPORTS = "import botfarm_server.embedded"

SUITE = """\
import time
from pathlib import Path


def test_first(bot_user):
    began = time.perf_counter()
    bot_user("stage", "regular")
    Path("seconds").write_text(str(time.perf_counter() - began))
"""


def python(path: Path, program: str) -> float:
    """Seconds that a new Python takes for a program."""
    return run([sys.executable, "-c", program], path).wall


def warm(path: Path) -> float:
    """Seconds from the first request to the first lease of a run."""
    run(
        [*PYTEST, "-p", "no:pytest_lockable"],
        path,
        {"BOTFARM_STATE_DIR": str(path / "state")},
    )
    return float((path / "seconds").read_text())


def cold(path: Path) -> float:
    """The same, of a run that has to make the database as well."""
    rmtree(path / "state", ignore_errors=True)
    return warm(path)


def main() -> None:
    with folder() as path:
        (path / "pytest.ini").write_text("[pytest]\n")
        (path / "test_first.py").write_text(SUITE)
        write_pool(path / "botfarm.toml")
        warm(path)
        took = rounds(
            ROUNDS,
            {
                f'python -c "{UNIT}"': partial(python, path, UNIT),
                f'python -c "{IMPORTS}"': partial(python, path, IMPORTS),
                "first lease, warm": partial(warm, path),
                "first lease, cold": partial(cold, path),
            },
        )
    unit, *_ = (median(seconds) for seconds in took.values())
    print(f"medians of {ROUNDS} rounds, milliseconds; the first line is the unit\n")
    table(
        ("", "time", "quartiles", "ratio"),
        *(
            (
                name,
                milliseconds(median(seconds)),
                " to ".join(map(milliseconds, quartiles(seconds))),
                f"{median(seconds) / unit:.2f}",
            )
            for name, seconds in took.items()
        ),
    )


if __name__ == "__main__":
    main()
