"""A client process: many workers that lease, hold, renew and release at random.

    python tests/torture/client.py --name c0 --server URL --witness PORT --history DIR

It ends on SIGTERM, once each worker has given back what it has. A line `die PHASE` on
its standard input has it kill itself the next time that it is in this phase.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

if __name__ == "__main__":  # as a program: the folder above is where `torture` is
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pytest_botfarm.client.errors import AcquireTimeoutError, BotfarmError
from pytest_botfarm.client.lifetimes import Lifetime
from pytest_botfarm.client.models import Holder, Lease, Want
from torture.history import History
from torture.holding import Keeper, ended
from torture.phases import Phases
from torture.recording import RecordingClient
from torture.witness import Stand

TTL = 5.0
"""Seconds, the least that the protocol allows."""
LONG_HOLD = (5.5, 9.0)
"""Seconds: longer than a TTL, so that it takes renewals."""
SHORT_HOLD = 0.02
WAITS = (0.05, 0.25, 1.0)
"""Parts of the longest wait."""
SHAPES: Sequence[tuple[int, Sequence[Want]]] = (
    (60, [Want("stage", "regular")]),
    (20, [Want("prod", "canary")]),
    (8, [Want("stage", "regular", labels={"role": "admin"})]),
    (7, [Want("stage", "regular", count=2)]),
    (5, [Want("stage", "regular"), Want("prod", "canary")]),
)
"""Wants, with how often they are asked for."""


class Worker:
    """One task that has one lease at a time."""

    def __init__(
        self,
        client: RecordingClient,
        keeper: Keeper,
        stand: Stand,
        history: History,
        phases: Phases,
        chance: random.Random,
        given: argparse.Namespace,
    ) -> None:
        self._client = client
        self._keeper = keeper
        self._stand = stand
        self._history = history
        self._phases = phases
        self._chance = chance
        self._long_holds: float = given.long_holds
        self._longest_wait: float = given.longest_wait

    async def lease_once(self) -> None:
        """Ask, use, hold and give back, or fail to."""
        lease_id = UUID(int=self._chance.getrandbits(128), version=4)
        try:
            lease = await self._ask(lease_id)
        except AcquireTimeoutError:
            return  # it has given up its place
        except (BotfarmError, asyncio.TimeoutError):
            await self._give_back(lease_id, None)
            return
        life = self._keeper.watch(lease)
        try:
            await self._hold(lease, life)
        finally:
            self._keeper.forget(life)
        if self._chance.random() < 0.01:
            return  # walks away: the farm has to take the user back
        await self._give_back(lease_id, lease)

    async def _ask(self, lease_id: UUID) -> Lease:
        weights = [weight for weight, _ in SHAPES]
        [(_, wants)] = self._chance.choices(SHAPES, weights)
        wait = self._longest_wait * self._chance.choice(WAITS)
        # Once in a while the caller leaves while its call waits.
        patience = self._chance.uniform(0.0, 1.0) if self._chance.random() < 0.03 else 0
        holder = Holder(run_id=self._history.process, worker_id=str(lease_id))
        self._history.write("ask", lease=str(lease_id), wait=wait)
        self._phases.reached("waiting")
        outcome = "cancelled"
        try:
            asking = self._client.run(
                self._client.protocol.acquire(
                    lease_id, wants, holder, ttl=TTL, wait=wait
                )
            )
            lease = await asyncio.wait_for(asking, patience or None)
        except (BotfarmError, asyncio.TimeoutError) as error:
            outcome = type(error).__name__
            raise
        else:
            outcome = "held"
            return lease
        finally:
            self._history.write("asked", lease=str(lease_id), outcome=outcome)

    async def _hold(self, lease: Lease, life: Lifetime) -> None:
        for_long = self._chance.random() < self._long_holds
        seconds = (
            self._chance.uniform(*LONG_HOLD)
            if for_long
            else self._chance.uniform(0, SHORT_HOLD)
        )
        until = self._history.now() + seconds
        while True:
            self._phases.reached("holding")
            for user in lease.users:
                if not await self._stand.use(
                    str(user.id),
                    user.fence,
                    str(lease.id),
                    lambda stamp: self._keeper.allows(life, stamp),
                ):
                    return
            left = until - self._history.now()
            if left <= 0:
                return
            await asyncio.sleep(min(left, 0.5))

    async def _give_back(self, lease_id: UUID, lease: Lease | None) -> None:
        self._phases.reached("releasing")
        protocol = self._client.protocol
        try:
            if self._chance.random() < 0.05:
                await self._client.run(
                    protocol.release_holder(
                        self._history.process,
                        str(lease_id),
                        outcome="crashed",
                        clean=False,
                    )
                )
                return
            fence = None if lease is None else lease.fence
            for _ in range(2 if self._chance.random() < 0.03 else 1):
                await self._client.run(
                    protocol.release(lease_id, fence=fence, outcome="passed")
                )
        except BotfarmError:
            pass  # it is over, or its TTL will end it; the history has what was told


async def _work(worker: Worker, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        await worker.lease_once()


async def _obey(phases: Phases) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        word, _, phase = line.decode().strip().partition(" ")
        if word == "die":
            phases.die_when(phase)
    os._exit(1)  # the run is gone, and nobody would end this process


async def run(given: argparse.Namespace) -> None:
    history = History(given.history, given.name)
    chance = random.Random(given.seed)
    phases = Phases()
    client = RecordingClient(given.server, history, chance)
    keeper = Keeper(client, history, phases, has_deadline=not given.no_deadline)
    stand = Stand(given.witness, history)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    background = [asyncio.create_task(keeper.run()), asyncio.create_task(_obey(phases))]
    worker = Worker(client, keeper, stand, history, phases, chance, given)
    await asyncio.gather(*(_work(worker, stopping) for _ in range(given.workers)))
    for task in background:
        await ended(task)
    stand.close()
    await client.aclose()
    history.write("finished")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--server", action="append", required=True, metavar="URL")
    parser.add_argument("--witness", type=int, required=True, metavar="PORT")
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument(
        "--long-holds",
        type=float,
        default=0.005,
        metavar="PART",
        help="the part of the leases that are held for longer than a TTL",
    )
    parser.add_argument("--longest-wait", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument(
        "--no-deadline",
        action="store_true",
        help="the mutant: go on using a lease until the server says that it is over",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asyncio.run(run(parse()))
