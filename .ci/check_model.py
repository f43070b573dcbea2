"""Checks docs/model/lease.pml with spin: all its states, and that its mutants fail.

spin and a C compiler are taken from the PATH. Where they are missing, spin comes from
Debian's package, unpacked beside this environment without installing it, and the
compiler from the wheel `ziglang`. Where they cannot be had, it says NOT CHECKED; on a
CI machine that has apt, that is a failure.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "docs" / "model" / "lease.pml"
TOOLS = Path(sys.prefix) / "model-tools"
PATIENCE = 240.0
"""Seconds for one command; the longest search takes ten on two cores."""
ENOUGH = 50_000
"""States; far fewer would mean that the model has come to a stand."""

OPTIONS = ("-O1", "-w", "-DCOLLAPSE")  # more would take longer than it saves
SEARCH = ("-DSAFETY", "-DREVERSE")  # from its last process on, mutants fail sooner
CYCLES = ("-DNP",)


@dataclass(frozen=True)
class Run:
    """One search through all states of the model, in one of its variants."""

    name: str
    defines: Sequence[str]
    fails_with: str | None = None
    """What the violated assertion has to read like; `None` if all must hold."""
    cycles: bool = False
    """Whether to look for runs that never end, instead of violated assertions."""
    covers: bool = False
    """Whether it is of those that must reach every step between them."""


RUNS = (
    Run("a crash and clients that leave", ["CRASHES=1", "LEAVERS=1"], covers=True),
    Run("heartbeats and clients that leave", ["HEARTBEATS=1", "LEAVERS=1"]),
    Run("a crash and heartbeats", ["CRASHES=1", "HEARTBEATS=1"], covers=True),
    Run("a client that comes back, a duplicate", ["DROPS=1", "DUPLICATES=1"]),
    Run(
        "two holders, a crash, a client that comes back, a duplicate",
        ["HOLDERS=2", "CRASHES=1", "DROPS=1", "DUPLICATES=1"],
        covers=True,
    ),
    Run(
        "two holders, heartbeats, a client that comes back, a duplicate",
        ["HOLDERS=2", "HEARTBEATS=1", "DROPS=1", "DUPLICATES=1"],
        covers=True,
    ),
    Run("two users", ["USERS=2", "CRASHES=1"]),
    Run(
        "a word for each grant, and no second look",
        ["WORDS_ARRIVE", "LEAVERS=3"],
    ),
    Run("every run ends, a crash", ["CRASHES=1"], cycles=True),
    Run("every run ends, heartbeats", ["HEARTBEATS=1"], cycles=True),
    Run(
        "every run ends, two holders, a client that comes back, a duplicate",
        ["HOLDERS=2", "DROPS=1", "DUPLICATES=1"],
        cycles=True,
    ),
    Run(
        "mutant: the waiter that does not look again after it queued",
        ["LOOKS_ONCE"],
        fails_with=r"sleeps\[0\]",
    ),
    Run(
        "mutant: the sweeper that trusts an old read",
        ["TRUSTS_OLD_READ", "HEARTBEATS=1"],
        fails_with=r"word\[k\]!=u",
    ),
    Run(
        "mutant: the release that locks its row before the queue",
        ["ROW_BEFORE_QUEUE", "CRASHES=1", "LEAVERS=1"],
        fails_with=r"queue_lock==",
    ),
    Run(
        "mutant: the call that leaves, whoever else waits",
        ["LEAVES_BLINDLY", "DUPLICATES=1"],
        fails_with=r"^assertion violated +!\(\(sleeps\[i\]",
    ),
)


class UnavailableError(Exception):
    """A tool cannot be had here; the message tells what was tried."""


def output_of(command: Sequence[str], folder: Path, **more: str) -> str:
    """What it prints. Raises UnavailableError, which shows that, if it fails."""
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **more},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{shlex.join(command)}: {error}") from error
    if ended.returncode:
        raise UnavailableError(f"{shlex.join(command)}: {ended.stdout.strip()[-2000:]}")
    return ended.stdout


def is_spin(program: str) -> bool:
    """PyPI has another program of this name."""
    try:
        return "Spin Version" in output_of([program, "-V"], ROOT)
    except UnavailableError:
        return False


def find_spin() -> str:
    """Raises UnavailableError."""
    unpacked = str(TOOLS / "usr" / "bin" / "spin")
    for program in (shutil.which("spin"), unpacked):
        if program is not None and is_spin(program):
            return program
    if not has_apt():
        raise UnavailableError("there is neither spin nor apt-get on the PATH")
    tried = []
    for get in (download, download_with_own_lists, install):
        try:
            get()
        except UnavailableError as error:
            tried.append(str(error))
        for program in (unpacked, shutil.which("spin")):
            if program is not None and is_spin(program):
                return program
    raise UnavailableError("\n".join(tried))


def has_apt() -> bool:
    return bool(shutil.which("apt-get") and shutil.which("dpkg"))


def download(*options: str) -> None:
    """Unpack Debian's package, for which one need not be root."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        output_of(["apt-get", "-q", *options, "download", "spin"], Path(folder))
        for package in Path(folder).glob("spin_*.deb"):
            output_of(["dpkg", "-x", str(package), str(TOOLS)], TOOLS)


def download_with_own_lists() -> None:
    """The machine's lists of packages may be missing or old, and not ours to renew."""
    with tempfile.TemporaryDirectory() as folder:
        lists, cache = Path(folder, "lists"), Path(folder, "cache")
        (lists / "partial").mkdir(parents=True)
        (cache / "archives" / "partial").mkdir(parents=True)
        own = [f"-oDir::State::lists={lists}", f"-oDir::Cache={cache}"]
        if os.geteuid() == 0:
            own.append("-oAPT::Sandbox::User=root")  # another could not write there
        output_of(["apt-get", "-q", *own, "update"], ROOT)
        download(*own)


def install() -> None:
    if os.geteuid() != 0:
        raise UnavailableError("apt-get install needs root")
    output_of(["apt-get", "-qy", "install", "--no-install-recommends", "spin"], ROOT)


def find_compiler() -> list[str]:
    """Raises UnavailableError."""
    for name in ("cc", "gcc", "clang"):
        if program := shutil.which(name):
            return [program]
    zig = [sys.executable, "-m", "ziglang", "cc"]
    try:
        output_of([*zig, "--version"], ROOT)
    except UnavailableError:
        pip = [sys.executable, "-m", "pip", "install", "-q", "ziglang"]
        output_of([*pip, "-c", str(ROOT / "constraints.txt")], ROOT)
    return zig


def search(run: Run, spin: str, compiler: list[str], folder: Path) -> str:
    """Go through all states of a variant; what the search printed."""
    folder.mkdir()
    shutil.copy(MODEL, folder)
    preprocess = f"-P{shlex.join(compiler)} -E -x c"
    defines = [f"-D{define}" for define in run.defines]
    output_of([spin, preprocess, "-a", *defines, MODEL.name], folder)
    options = [*OPTIONS, *(CYCLES if run.cycles else SEARCH)]
    output_of([*compiler, *options, "-o", "pan", "pan.c"], folder)
    return output_of(["./pan", "-m100000", *(["-l"] if run.cycles else [])], folder)


def fault_of(run: Run, printed: str) -> str | None:
    """What is not as it must be."""
    errors = re.search(r"errors: (\d+)", printed)
    if errors is None or "too small" in printed or "out of memory" in printed:
        return f"the search did not end:\n{printed}"
    violated = re.search(r"^pan:1: (.*)$", printed, re.MULTILINE)
    if run.fails_with is None:
        if errors[1] != "0" or violated:
            return f"fails: {violated[1] if violated else printed}"
        if states_of(printed) < ENOUGH:
            return f"has no more than {states_of(printed)} states"
        return None
    if violated is None:
        return "must fail, and holds"
    if not re.search(run.fails_with, violated[1]):
        return f"must fail with {run.fails_with}, and fails with {violated[1]}"
    return None


def states_of(printed: str) -> int:
    found = re.search(r"(\d+) states, stored", printed)
    return int(found[1]) if found else 0


def unreached(printed: str) -> set[str]:
    """Lines of the model with steps that were not taken. No loop comes to its end."""
    steps = re.findall(r'lease\.pml:(\d+), state \d+, "(.*)"', printed)
    return {line for line, step in steps if step != "-end-"}


def main() -> None:
    try:
        spin, compiler = find_spin(), find_compiler()
    except UnavailableError as error:
        if os.environ.get("CI") and has_apt():
            sys.exit(f"The model cannot be checked, although apt is here:\n{error}")
        print(f"NOT CHECKED: the model of the protocol, for want of a tool.\n{error}")
        return
    faults: list[str] = []
    never: list[set[str]] = []
    with tempfile.TemporaryDirectory() as parent, ThreadPoolExecutor(2) as threads:

        def checked(number: int) -> tuple[Run, str, float]:
            began = time.monotonic()
            printed = search(RUNS[number], spin, compiler, Path(parent, str(number)))
            return RUNS[number], printed, time.monotonic() - began

        for run, printed, seconds in threads.map(checked, range(len(RUNS))):
            fault = fault_of(run, printed)
            if fault is not None:
                faults.append(f"{run.name}: {fault}")
            if run.covers:
                never.append(unreached(printed))
            as_expected = "NOT SO" if fault else "fails" if run.fails_with else "holds"
            states = f"{states_of(printed):>9,} states"
            print(f"{as_expected:<6} {states}  {seconds:4.0f} s  {run.name}")
    if lines := set.intersection(*never):
        faults.append(f"no run takes the steps in lines {', '.join(sorted(lines))}")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
