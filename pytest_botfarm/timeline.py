"""The page that `--botfarm-report` asks for: who had which account when.

One file that needs nothing beside it. Its tables are written here and are all there is
to know; its own script draws the chart from them.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pytest

from .client.clock import clock, wall_time
from .keeping import clock_time
from .report import LeaseFigures, Summary

TEMPLATE = Path(__file__).with_name("timeline.html")
SLOT = re.compile(r"<!-- slot: (\w+) -->")
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class Timeline:
    """Writes the page at the end of a run, also of one that was interrupted."""

    def __init__(self, config: pytest.Config, summary: Summary, path: Path) -> None:
        self._config = config
        self._summary = summary
        self._path = path
        self._told = ""

    # Last, since the runner ends what is still leased in this hook.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._config.getoption("collectonly"):
            return
        page = page_of(
            list(self._summary.leases.values()),
            name=self._config.rootpath.name,
            ended=wall_time(clock()),
            interrupted=exitstatus == pytest.ExitCode.INTERRUPTED,
        )
        self._told = _write(self._path, page)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        if self._told:
            terminalreporter.write_sep("-", self._told)


def _write(path: Path, page: str) -> str:
    """Write the page, and say how it went: it is no reason for a run to fail."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A test's id may have halves of characters, from the name of its file.
        path.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        return f"botfarm report not written: {error}"
    return f"botfarm report: {path.resolve().as_uri()}"


@dataclass
class _Account:
    """What became of one account in the run."""

    login: str
    pool: str
    leases: int = 0
    held: float = 0.0
    waited: float = 0.0
    longest: float = 0.0
    lost: int = 0
    kept: float | None = None
    quarantined: str = ""

    def add(self, lease: LeaseFigures, ended: float) -> None:
        self.leases += 1
        self.held += _held(lease, ended)
        self.waited += lease["waited"]
        self.longest = max(self.longest, lease["waited"])
        self.lost += lease["lost"] is not None
        self.kept = lease["kept"] or self.kept
        self.quarantined = lease["quarantined"].get(self.login, self.quarantined)


@dataclass
class _Run:
    """All leases of a run, the first asked for first."""

    leases: Sequence[LeaseFigures]
    began: float
    ended: float
    accounts: Mapping[tuple[str, str], _Account]

    @property
    def span(self) -> float:
        return max(self.ended - self.began, 0.001)


def page_of(
    leases: Iterable[LeaseFigures], *, name: str, ended: float, interrupted: bool
) -> str:
    """The whole page. Leases that are not given back count until `ended`."""
    run = _run_of(sorted(leases, key=lambda lease: lease["asked"]), ended)
    slots = {
        "title": f"Botfarm: {escape(name)}",
        "when": _when(run, interrupted=interrupted),
        "figures": "".join(_figures(run)),
        "accounts": "\n".join(_account_rows(run)),
        "leases": "\n".join(_lease_rows(run)),
        "span": f"{run.span:.3f}",
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    script = SCRIPT.search(template)
    slots["digest"] = _digest(script[1]) if script else ""
    # In one pass, so that nothing that a suite named is taken for a slot.
    return SLOT.sub(lambda slot: slots[slot[1]], template)


def _digest(script: str) -> str:
    """What lets the browser run the page's own script, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _run_of(leases: Sequence[LeaseFigures], ended: float) -> _Run:
    began = min((lease["asked"] for lease in leases), default=ended)
    ended = max((lease["ended"] or ended for lease in leases), default=ended)
    accounts: dict[tuple[str, str], _Account] = {}
    for lease in leases:
        for login, pool in lease["users"]:
            account = accounts.setdefault((pool, login), _Account(login, pool))
            account.add(lease, ended)
    return _Run(leases, began, ended, dict(sorted(accounts.items())))


def _held(lease: LeaseFigures, ended: float) -> float:
    """Seconds until it was given back, or lost."""
    if not lease["users"]:
        return 0.0
    until = lease["lost"] or lease["ended"] or ended
    return max(0.0, until - lease["answered"])


def _when(run: _Run, *, interrupted: bool) -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(run.began))
    text = f"{began}. From the first wish to the last release: {_duration(run.span)}"
    if not run.leases:
        text = f"{began}. No test asked for an account"
    return f"{text}. <strong>The run was interrupted.</strong>" if interrupted else text


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02d}:{seconds:02d} h"
        if hours
        else f"{minutes}:{seconds:02d} min"
    )


def _figures(run: _Run) -> Iterator[str]:
    held = [lease for lease in run.leases if lease["users"]]
    quarantined = sum(bool(it.quarantined) for it in run.accounts.values())
    for name, value, is_bad in (
        ("leases", str(len(held)), False),
        ("accounts", str(len(run.accounts)), False),
        ("workers", str(len({lease["worker"] for lease in run.leases})), False),
        ("waited in all", _duration(sum(it["waited"] for it in run.leases)), False),
        (
            "longest wait",
            _duration(max((it["waited"] for it in run.leases), default=0)),
            False,
        ),
        ("lost", str(sum(it["lost"] is not None for it in held)), True),
        ("not leased", str(len(run.leases) - len(held)), True),
        ("kept", str(sum(it["kept"] is not None for it in held)), False),
        ("in quarantine", str(quarantined), True),
    ):
        kind = ' class="bad"' if is_bad and value != "0" else ""
        yield f"<div{kind}><dt>{name}</dt><dd>{value}</dd></div>"


def _account_rows(run: _Run) -> Iterator[str]:
    for account in run.accounts.values():
        remarks = [f"lost {account.lost} ×"] if account.lost else []
        if account.kept is not None:
            remarks.append(f"kept until {clock_time(account.kept)}")
        if account.quarantined:
            remarks.append(f"in quarantine: {account.quarantined}")
        yield _row(
            account.login,
            account.pool,
            account.leases,
            f"{account.held:.2f}",
            f"{account.held / run.span:.0%}",
            f"{account.waited:.2f}",
            f"{account.longest:.2f}",
            "; ".join(remarks),
        )


def _lease_rows(run: _Run) -> Iterator[str]:
    for lease in run.leases:
        lost, kept = lease["lost"], lease["kept"]
        until = lease["ended"] or run.ended
        kept_here = None if kept is None else min(kept, run.ended)
        instants = (lease["asked"], lease["answered"], until, lost, kept_here)
        marks = " ".join(
            "" if it is None else f"{it - run.began:.3f}" for it in instants
        )
        outcome = lease["outcome"] if lease["users"] else "not leased"
        if lost is not None:
            outcome += ", lease lost"
        if kept is not None:
            outcome += f", kept until {clock_time(kept)}"
        for login, pool in lease["users"] or [("", ", ".join(lease["pools"]))]:
            yield _row(
                f"{lease['asked'] - run.began:.2f}",
                login,
                pool,
                lease["test"],
                lease["worker"],
                f"{lease['waited']:.2f}",
                f"{_held(lease, run.ended):.2f}",
                outcome,
                lease["id"],
                instants=marks,
            )


def _row(*cells: object, instants: str | None = None) -> str:
    marks = "" if instants is None else f' data-at="{escape(instants)}"'
    inner = "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
    return f"<tr{marks}>{inner}</tr>"
