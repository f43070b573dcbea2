"""What the person at the terminal is told while tests run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from threading import Lock
from typing import TYPE_CHECKING

import pytest

from .client.models import Blocker, Holder, Waiting, Want
from .client.wording import held_by_none, how_kept

if TYPE_CHECKING:
    from .limits import Limit

MOST_BLOCKERS = 3
"""How many a line names; the others are counted."""

_saying = Lock()


def say(config: pytest.Config, line: str) -> None:
    """Print a line at once, also amid a test whose output is captured.

    From any thread: what another one prints just then may stand beside it. Says
    nothing in a process without a terminal.
    """
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None:
        return
    capture = config.pluginmanager.get_plugin("capturemanager")
    uncaptured = capture.global_and_fixture_disabled() if capture else nullcontext()
    # One at a time: who comes second finds the capture suspended, and not for how long.
    with _saying, uncaptured:
        writer = config.get_terminal_writer()
        terminal.ensure_newline()
        if writer.width_of_current_line:  # pytest-xdist's dots and its status
            writer.line()
        terminal.write_line(line, yellow=True)


def waiting_line(asker: Holder, wants: Sequence[Want], waiting: Waiting) -> str:
    """Whom a test waits for."""
    wanted = " and ".join(str(want) for want in wants)
    return (
        f"botfarm: {asker.test_id} has waited {waiting.waited:.0f} s for {wanted}: "
        + _in_the_way(asker, waiting)
    )


def advice(cut_short: Limit | None) -> str:
    """What to do where a test got no account in time, or within its own timeout."""
    longer = cut_short.advice if cut_short else "Wait longer (--botfarm-wait)"
    return f"{longer}, add accounts to the pool, or run fewer workers."


def _in_the_way(asker: Holder, waiting: Waiting) -> str:
    named = [_holding(asker, it) for it in waiting.blockers[:MOST_BLOCKERS]]
    if more := len(waiting.blockers) - len(named):
        named.append(f"and {more} more")
    parts = [", ".join(named)] if named else []
    if waiting.matching is not None:
        parts += held_by_none(waiting.matching)
    waits = "others wait for the same accounts, or they rest after a crash"
    return "; ".join(parts) or waits


def _holding(asker: Holder, blocker: Blocker) -> str:
    if kept := how_kept(blocker):
        return f"{blocker.login} is {kept} (`botfarm leases break` gives it back)"
    is_own = asker.is_same_test(blocker.holder)
    return f"{blocker.login} is held by {'itself' if is_own else blocker.holder}"
