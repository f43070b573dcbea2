"""Judges a run by its evidence. Every rule is a function that yields violations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from . import (
    rules_of_clients,
    rules_of_database,
    rules_of_deadlocks,
    rules_of_machine,
    rules_of_outcomes,
    rules_of_waiting,
)
from .evidence import Evidence
from .violations import Violation

Rule = Callable[[Evidence], Iterator[Violation]]

RULES: Sequence[Rule] = (
    rules_of_database.one_holder_at_a_time,
    rules_of_database.fences_grow,
    rules_of_database.ends_in_their_time,
    rules_of_database.users_rest,
    rules_of_database.nothing_is_left,
    rules_of_database.nobody_is_overtaken,
    rules_of_database.handed_on_in_time,
    rules_of_waiting.nobody_waits_for_what_is_free,
    rules_of_waiting.patience_has_an_end,
    rules_of_clients.beliefs_do_not_overlap,
    rules_of_clients.beliefs_end_before_the_lease,
    rules_of_clients.uses_are_within_the_lease,
    rules_of_clients.no_old_fence_is_accepted,
    rules_of_clients.answers_are_allowed,
    rules_of_clients.answers_are_true,
    rules_of_clients.grants_are_known,
    rules_of_clients.everyone_is_answered,
    rules_of_outcomes.outcomes_have_a_reason,
    rules_of_outcomes.waiters_are_kept,
    rules_of_outcomes.grants_are_told_in_time,
    rules_of_outcomes.nothing_is_revoked,
    rules_of_deadlocks.deadlocks_are_true,
    rules_of_deadlocks.the_youngest_is_refused,
    rules_of_deadlocks.deadlocks_are_broken,
    rules_of_machine.logs_are_clean,
    rules_of_machine.resources_are_level,
    rules_of_machine.enough_before_the_first_fault,
    rules_of_machine.enough_under_faults,
    rules_of_machine.enough_deadlocks,
)


@dataclass
class Verdict:
    violations: list[Violation]
    leases: int
    calls: int
    unknown_calls: int
    uses: int
    refused_uses: int
    losses: int
    taken_back: int
    deadlocks: int
    leases_before_faults: int
    hand_ons_under_faults: int
    longest_hand_on: float
    faults: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    def broken(self) -> set[str]:
        """The names of the rules that were broken."""
        return {violation.rule for violation in self.violations}


def check(evidence: Evidence) -> Verdict:
    violations = [found for rule in RULES for found in rule(evidence)]
    answers = Counter(
        f"{call.operation} {call.status} {call.code or ''}".strip()
        for call in evidence.calls
        if call.status is not None
    )
    return Verdict(
        violations=violations,
        leases=sum(1 for lease in evidence.leases if lease.granted is not None),
        calls=len(evidence.calls),
        unknown_calls=sum(1 for call in evidence.calls if call.end is None)
        + sum(1 for call in evidence.calls if call.end and call.status is None),
        uses=len(evidence.uses),
        refused_uses=sum(1 for seen in evidence.seen if not seen.accepted),
        losses=sum(1 for lease in evidence.leases if lease.state == "expired"),
        taken_back=len(evidence.taken_back),
        deadlocks=len(rules_of_deadlocks.refused_for_deadlock(evidence)),
        leases_before_faults=rules_of_machine.leases_before_faults(evidence),
        hand_ons_under_faults=rules_of_machine.hand_ons_under_faults(evidence),
        longest_hand_on=rules_of_database.longest_hand_on(evidence),
        faults=Counter(fault.kind for fault in evidence.faults),
        answers=answers,
    )
