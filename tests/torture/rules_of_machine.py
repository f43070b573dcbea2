"""What must hold of logs and processes, and of the run itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from .evidence import Evidence, Sample
from .rules_of_deadlocks import refused_for_deadlock
from .violations import Violation

BESIDES_POOL = 3
"""Connections beside the pool: LISTEN, its successor, and one for the migration."""
LONG_ENOUGH = 40
"""Samples of one process from which on its growth can be told."""
GROWTH_OF_MEMORY, GROWTH_OF_DESCRIPTORS = 0.25, 40
MEMORY_SLACK = 32 * 1024 * 1024
MAXIMUM_DESCRIPTORS = 600


def logs_are_clean(evidence: Evidence) -> Iterator[Violation]:
    for line in evidence.log_lines:
        yield Violation("logged", line)


def resources_are_level(evidence: Evidence) -> Iterator[Violation]:
    by_process: defaultdict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in evidence.samples:
        by_process[sample.server, sample.pid].append(sample)
        allowed = evidence.rules.pool_size + BESIDES_POOL
        if sample.connections > allowed:
            yield Violation(
                "too many connections",
                f"{sample.server} has {sample.connections}, {allowed} are allowed",
            )
        if sample.descriptors > MAXIMUM_DESCRIPTORS:
            yield Violation(
                "file descriptors grew",
                f"{sample.server} has {sample.descriptors}",
            )
    for (server, _), samples in by_process.items():
        if len(samples) >= LONG_ENOUGH:
            yield from _growth(server, samples)


def _growth(server: str, samples: list[Sample]) -> Iterator[Violation]:
    quarter = len(samples) // 4
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]
    early = median(sample.memory for sample in before)
    late = median(sample.memory for sample in after)
    if late > early * (1 + GROWTH_OF_MEMORY) + MEMORY_SLACK:
        yield Violation(
            "memory grew", f"{server} from {early / 1e6:.0f} to {late / 1e6:.0f} MB"
        )
    early = median(sample.descriptors for sample in before)
    late = median(sample.descriptors for sample in after)
    if late > early + GROWTH_OF_DESCRIPTORS:
        yield Violation("file descriptors grew", f"{server} from {early} to {late}")


def first_fault(evidence: Evidence) -> float:
    return min((fault.start for fault in evidence.faults), default=float("inf"))


def leases_before_faults(evidence: Evidence) -> int:
    first = first_fault(evidence)
    return sum(
        1
        for lease in evidence.leases
        if lease.granted is not None and lease.granted < first
    )


def hand_ons_under_faults(evidence: Evidence) -> int:
    """Leases that had waited and were granted after the first fault."""
    first = first_fault(evidence)
    return sum(
        1
        for lease in evidence.leases
        if lease.granted is not None and lease.granted > max(first, lease.created)
    )


def enough_before_the_first_fault(evidence: Evidence) -> Iterator[Violation]:
    needed = evidence.rules.leases_before_faults
    found = leases_before_faults(evidence)
    if found < needed:
        yield Violation(
            "does not count",
            f"{found} leases before the first fault, and {needed} are needed",
        )


def enough_deadlocks(evidence: Evidence) -> Iterator[Violation]:
    needed = evidence.rules.deadlocks
    found = len(refused_for_deadlock(evidence))
    if found < needed:
        yield Violation(
            "does not count", f"{found} were deadlocks, and {needed} are needed"
        )


def enough_under_faults(evidence: Evidence) -> Iterator[Violation]:
    """A farm that stands still breaks no other rule."""
    granted = sum(1 for lease in evidence.leases if lease.granted is not None)
    rules = evidence.rules
    for what, found, needed in (
        (
            "leases",
            granted - leases_before_faults(evidence),
            rules.leases_under_faults,
        ),
        (
            "leases that had waited",
            hand_ons_under_faults(evidence),
            rules.hand_ons_under_faults,
        ),
    ):
        if evidence.faults and found < needed:
            yield Violation(
                "does not count",
                f"{found} {what} after the first fault, and {needed} are needed",
            )
