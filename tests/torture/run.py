"""A run of the torture: a farm, clients, faults, and a verdict.

    python tests/torture/run.py --seed 7 --seconds 60 --database postgresql

The seed draws the plan of faults: the same seed and options give the same plan. The
exit code is 0 if nothing was violated, 1 if something was, and 2 for a wrong option.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pickle
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

if __name__ == "__main__":  # as a program: the folder above is where `torture` is
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from torture import farm as farming
from torture.checker import Verdict, check
from torture.evidence import Rules
from torture.failpoints import AT_RANDOM
from torture.farm import Farm, Size
from torture.mutants import MUTANTS
from torture.nemesis import Nemesis
from torture.plan import KINDS, PlannedFault, draw, draw_each, kinds_for
from torture.report import report

WARM_UP_LIMIT = 120.0
"""Seconds within which the leases before the first fault must have been made."""
NO_DEADLINE = "no-deadline"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/torture/run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"faults: {', '.join(KINDS)}, failpoints",
    )
    parser.add_argument(
        "--seed", type=int, help="what the plan is drawn from (default: by chance)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="of mixed faults (default: %(default)s)",
    )
    parser.add_argument(
        "--database", choices=["postgresql", "sqlite"], default="postgresql"
    )
    parser.add_argument("--servers", type=int, help="processes (default: 3, SQLite 2)")
    parser.add_argument(
        "--clients", type=int, default=3, help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, help="of each client (default: 16, SQLite 6)"
    )
    parser.add_argument(
        "--hoarders",
        type=int,
        default=2,
        help="of each client, beside its workers: who hold a lease and ask for another "
        "one (default: %(default)s)",
    )
    parser.add_argument(
        "--users", type=int, help="in the farm (default: two for three workers)"
    )
    parser.add_argument(
        "--faults",
        default="all",
        metavar="A,B,C",
        help="which kinds, `all` or `none` (default: %(default)s)",
    )
    parser.add_argument(
        "--rate", type=float, default=1.2, help="faults a second (default: %(default)s)"
    )
    parser.add_argument(
        "--each",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="of each kind on its own, before all of them mixed (default: none)",
    )
    parser.add_argument(
        "--failpoint-rate",
        type=float,
        default=0.004,
        help="of the times that each is passed (default: %(default)s)",
    )
    parser.add_argument(
        "--longest-wait",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="for which a client asks for a lease (default: %(default)s)",
    )
    parser.add_argument(
        "--warm-up",
        type=int,
        default=200,
        metavar="LEASES",
        help="before the first fault; fewer do not count (default: %(default)s)",
    )
    parser.add_argument(
        "--under-faults",
        type=int,
        metavar="LEASES",
        help="from the first fault on, and a tenth of them for those who had waited; "
        "fewer do not count (default: one for each second)",
    )
    parser.add_argument(
        "--mutant",
        choices=[*MUTANTS, NO_DEADLINE],
        help="replace one piece of the servers, or of the clients, by a wrong one",
    )
    parser.add_argument(
        "--plan", action="store_true", help="print the plan of the seed and end"
    )
    parser.add_argument(
        "--folder", type=Path, help="keep histories and logs here (default: nowhere)"
    )
    given = parser.parse_args(arguments)
    if given.seed is None:
        given.seed = random.randrange(1_000_000)
    if given.servers is None:
        given.servers = 3 if given.database == "postgresql" else 2
    if given.workers is None:
        # SQLite has one writer at a time: more would only wait for their turn.
        given.workers = 16 if given.database == "postgresql" else 6
    if given.users is None:
        # Fewer than workers, so that some wait.
        given.users = max(6, given.clients * given.workers * 2 // 3)
    if given.under_faults is None:
        given.under_faults = int(given.seconds)
    if min(given.servers, given.clients, given.workers, given.users) < 1:
        parser.error("servers, clients, workers and users are at least 1")
    wanted = None if given.faults == "all" else _names(given.faults)
    given.failpoints = wanted is None or "failpoints" in wanted
    try:
        given.kinds = kinds_for(
            given.database, wanted and [it for it in wanted if it != "failpoints"]
        )
    except ValueError as error:
        parser.error(str(error))
    if wanted is not None and not [it for it in wanted if it != "failpoints"]:
        given.kinds = []
    return given


def _names(listed: str) -> list[str]:
    if listed == "none":
        return []
    return [name.strip() for name in listed.split(",") if name.strip()]


def plan_of(given: argparse.Namespace) -> list[PlannedFault]:
    """What the seed and the options come to: each kind alone, then all mixed."""
    size = {"servers": given.servers, "clients": given.clients}
    alone: list[PlannedFault] = []
    if given.each:
        kinds, each = given.kinds, given.each
        alone = draw_each(given.seed, kinds=kinds, each=each, rate=given.rate, **size)
    start = max((it.at + it.seconds for it in alone), default=0.0)
    mixed = draw(
        given.seed, kinds=given.kinds, seconds=given.seconds, rate=given.rate, **size
    )
    return alone + [
        replace(it, number=len(alone) + it.number, at=round(start + it.at, 3))
        for it in mixed
    ]


async def torture(given: argparse.Namespace, folder: Path) -> Verdict:
    """Run the farm under the plan's faults, and judge what came of it."""
    server_options = [f"--mutant={given.mutant}"] if given.mutant in MUTANTS else []
    if given.failpoints:
        server_options += [
            f"--failpoint={point}:{given.failpoint_rate}" for point in AT_RANDOM
        ]
    size = Size(
        database=given.database,
        servers=given.servers,
        clients=given.clients,
        workers=given.workers,
        users=given.users,
        seed=given.seed,
        server_options=tuple(server_options),
        client_options=(
            f"--longest-wait={given.longest_wait}",
            f"--hoarders={given.hoarders}",
            *(["--no-deadline"] if given.mutant == NO_DEADLINE else []),
        ),
    )
    rules = Rules(
        loop_interval=farming.LOOP_INTERVAL,
        lock_delay=farming.LOCK_DELAY,
        poll_grace=farming.POLL_GRACE,
        pool_size=farming.POOL_SIZE,
        leases_before_faults=given.warm_up,
        leases_under_faults=given.under_faults,
        hand_ons_under_faults=given.under_faults // 10,
        deadlocks=int(given.seconds / 120) if given.hoarders else 0,
    )
    farm = Farm(folder, size, rules)
    try:
        await farm.start()
        await _warm_up(farm, given.warm_up)
        farm.switch_failpoints(on=True)
        nemesis = Nemesis(farm)
        plan = plan_of(given)
        last = max([given.seconds, *(fault.at for fault in plan)])
        ending = asyncio.create_task(asyncio.sleep(last))
        await nemesis.carry_out(plan)
        await ending
        farm.switch_failpoints(on=False)
        await farm.come_to_rest()
        evidence = await farm.evidence()
        (folder / "evidence.pickle").write_bytes(pickle.dumps(evidence))
        return check(evidence)
    finally:
        await farm.stop()


async def _warm_up(farm: Farm, leases: int) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + WARM_UP_LIMIT
    while farm.witness.leases <= leases and loop.time() < until:
        await asyncio.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    if given.plan:
        for fault in plan_of(given):
            print(json.dumps(asdict(fault)))  # noqa: T201
        return 0
    folder = given.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        print(f"{folder} is not empty", file=sys.stderr)  # noqa: T201
        return 2
    # A run that is told to stop ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(f"seed {given.seed}", flush=True)  # noqa: T201
    try:
        verdict = asyncio.run(torture(given, folder))
        print(report(given, verdict))  # noqa: T201
    finally:
        if given.folder is None:
            shutil.rmtree(folder)
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
