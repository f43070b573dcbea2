"""Who a process is to the server, and what it holds for one test or scope."""

from __future__ import annotations

import os
import socket
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from .client.clock import clock
from .client.errors import LeaseLostError
from .client.lifetimes import Lifetime, Loss
from .client.models import Holder, Lease, Want
from .client.wire import readable
from .report import MAIN

if TYPE_CHECKING:
    from .idle import LeaseFile
    from .keeping import Keeping
    from .users import BotUser

MAXIMUM_AUTHOR = 255
MAXIMUM_TEXT = 2_000
"""Characters of a test's id, a job's URL or a reason that the server takes."""

Place = tuple[Hashable, int]
"""What is asked for, and a number among the open leases that ask for the same."""


@dataclass(slots=True)
class Holding:
    """One lease of this process, from before it is asked for until after its end."""

    wants: Sequence[Want]
    id: UUID = field(default_factory=uuid4)
    process: int = field(default_factory=os.getpid)
    lease: Lease | None = None
    lifetime: Lifetime | None = None
    file: LeaseFile | None = None
    users: Sequence[BotUser] = ()
    asked: float | None = None
    answered: float | None = None
    ended: float | None = None
    """When it was sent, granted or refused, and given back."""
    loss: Loss | None = None
    quarantined: dict[str, str] = field(default_factory=dict)
    """Which of its accounts were put in quarantine, by login, and why."""
    test_id: str = ""
    keeping: Keeping | None = None
    kept: str = ""
    """What the closing summary says of it once it is kept."""
    kept_until: float | None = None
    is_over: bool = False
    """Whether its test has ended, so that nothing is to be leased for it any more."""
    is_told: bool = False
    """Whether the suite's hooks heard that it was acquired, and not yet of its end."""

    def begin_anew(self) -> None:
        """Ask for the same again, after what it was has been given back."""
        self.id = uuid4()
        self.asked = self.answered = self.ended = None
        self.lease = self.lifetime = self.loss = self.file = None
        self.users = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is, for whoever waits for what it holds."""

    run_id: str = field(default_factory=lambda: uuid4().hex)
    worker_id: str = MAIN
    host: str = field(default_factory=socket.gethostname)
    job_url: str | None = field(default_factory=lambda: job_url(os.environ))

    def holder(self, test_id: str) -> Holder:
        told = shortened(test_id)
        return Holder(self.run_id, self.worker_id, told, self.host, self.job_url)


def shortened(test_id: str) -> str:
    """A test's id as the server takes it."""
    test_id = readable(test_id)
    if len(test_id) > MAXIMUM_TEXT:
        return test_id[: MAXIMUM_TEXT - 1] + "…"
    return test_id


def job_url(environ: Mapping[str, str]) -> str | None:
    """The web page of the CI job that this process is part of."""
    if "GITHUB_RUN_ID" in environ and "GITHUB_REPOSITORY" in environ:
        server = environ.get("GITHUB_SERVER_URL", "https://github.com")
        return (
            f"{server}/{environ['GITHUB_REPOSITORY']}/actions/runs/"
            f"{environ['GITHUB_RUN_ID']}"
        )
    for name in ("CI_JOB_URL", "BUILD_URL", "CIRCLE_BUILD_URL", "BUILDKITE_BUILD_URL"):
        if url := environ.get(name):
            return url[:MAXIMUM_TEXT]
    return None


def lost_error(holding: Holding, loss: Loss) -> LeaseLostError:
    """What a test is told whose lease was lost."""
    logins = ", ".join(user.login for user in holding.users)
    ago = max(0.0, clock() - loss.at)
    lines = [f"The lease of {logins} was lost {ago:.1f} s ago: {loss.reason}"]
    for user in loss.users:
        now = f"held by {user.holder}" if user.holder else "held by nobody"
        lines.append(f"  {user.login} is now {now}")
    lines.append(
        "Another test may have used the account since, so the result of this one "
        "means nothing. It is a fault of the infrastructure, not of the test."
    )
    return LeaseLostError("\n".join(lines), users=loss.users)
