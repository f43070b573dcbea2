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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
WALKS_AWAY = 0.01
"""The part of the leases that nobody gives back."""
WAITS = (0.05, 0.25, 1.0)
"""Parts of the longest wait."""
SHAPES: Sequence[tuple[int, Sequence[Want]]] = (
    (60, [Want("stage", "regular")]),
    (2, [Want("preprod", "regular")]),
    (20, [Want("prod", "canary")]),
    (8, [Want("stage", "regular", labels={"role": "admin"})]),
    (7, [Want("stage", "regular", count=2)]),
    (5, [Want("stage", "regular"), Want("prod", "canary")]),
)
"""Wants, with how often they are asked for."""
HOARD, RARE = Want("preprod", "regular"), Want("preprod", "canary")
"""Pools of two users and of one: `farm.py` makes them."""
HOARDS: Sequence[tuple[int, Want, Want]] = (
    (6, HOARD, HOARD),
    (3, HOARD, RARE),
    (3, RARE, HOARD),
    (1, RARE, RARE),
    (2, Want("stage", "regular"), HOARD),
    (2, HOARD, Want("stage", "regular", labels={"role": "admin"})),
)
"""What a hoarder asks for and then asks for besides, with how often."""
LONGEST_PAUSE = 1.0
"""Seconds between two hoards, so that others have the small pools too."""


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
        weights = [weight for weight, _ in SHAPES]
        [(_, wants)] = self._chance.choices(SHAPES, weights)
        lease_id = self._new_id()
        lease = await self._obtain(lease_id, wants, worker_id=lease_id)
        if lease is None:
            return
        with self._keeping(lease) as life:
            await self._hold(lease, life)
        if self._chance.random() < WALKS_AWAY:
            return  # the farm has to take the user back
        await self._give_back(lease_id, lease, worker_id=lease_id)

    def _new_id(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)

    @contextmanager
    def _keeping(self, lease: Lease) -> Iterator[Lifetime]:
        """Renew a lease until it is about to be given back."""
        life = self._keeper.watch(lease)
        try:
            yield life
        finally:
            self._keeper.forget(life)

    async def _obtain(
        self, lease_id: UUID, wants: Sequence[Want], *, worker_id: UUID
    ) -> Lease | None:
        """Ask for a lease as this worker of the run; give back what came to nothing."""
        try:
            return await self._ask(lease_id, wants, worker_id)
        except AcquireTimeoutError:
            return None  # it has given up its place
        except (BotfarmError, asyncio.TimeoutError):
            await self._give_back(lease_id, None, worker_id=worker_id)
            return None

    async def _ask(
        self, lease_id: UUID, wants: Sequence[Want], worker_id: UUID
    ) -> Lease:
        wait = self._longest_wait * self._chance.choice(WAITS)
        # Once in a while the caller leaves while its call waits.
        patience = self._chance.uniform(0.0, 1.0) if self._chance.random() < 0.03 else 0
        holder = Holder(run_id=self._history.process, worker_id=str(worker_id))
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

    async def _give_back(
        self, lease_id: UUID, lease: Lease | None, *, worker_id: UUID
    ) -> None:
        self._phases.reached("releasing")
        protocol = self._client.protocol
        try:
            # All that the worker has goes with its first lease, which bears its name.
            if lease_id == worker_id and self._chance.random() < 0.05:
                await self._client.run(
                    protocol.release_holder(
                        self._history.process,
                        str(worker_id),
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


class Hoarder(Worker):
    """One task that has a lease, and asks for another one as the same holder.

    Several of them wait for each other then, or one for itself.
    """

    async def lease_once(self) -> None:
        weights = [weight for weight, _, _ in HOARDS]
        [(_, wanted, besides)] = self._chance.choices(HOARDS, weights)
        first_id, second_id = self._new_id(), self._new_id()
        first = await self._obtain(first_id, [wanted], worker_id=first_id)
        if first is not None:
            with self._keeping(first) as life:
                second = await self._obtain(second_id, [besides], worker_id=first_id)
                if second is not None:
                    with self._keeping(second) as other_life:
                        await self._hold(second, other_life)
                await self._hold(first, life)
            if self._chance.random() >= WALKS_AWAY:
                await self._give_back(first_id, first, worker_id=first_id)
                await self._give_back(second_id, second, worker_id=first_id)
        await asyncio.sleep(self._chance.uniform(0, LONGEST_PAUSE))


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
    parts = (client, keeper, stand, history, phases, chance, given)
    tasks = [Worker(*parts)] * given.workers + [Hoarder(*parts)] * given.hoarders
    await asyncio.gather(*(_work(worker, stopping) for worker in tasks))
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
        "--hoarders",
        type=int,
        default=2,
        help="tasks that hold one lease and ask for another (default: %(default)s)",
    )
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
