"""What is told of a run."""

from __future__ import annotations

import argparse
from collections import Counter

from .checker import Verdict

SHOWN = 20
"""Violations of one rule that are told in full."""


def report(given: argparse.Namespace, verdict: Verdict) -> str:
    size = f"{given.servers} servers, {given.clients} clients"
    unknown = f"of which {verdict.unknown_calls} have an unknown outcome"
    refused = f"of which the witness refused {verdict.refused_uses}"
    lines = [
        f"seed {given.seed}, {given.database}, {size} of {given.workers} workers",
        f"seconds of faults {given.seconds:g}",
        f"leases            {verdict.leases}",
        f"  before faults   {verdict.leases_before_faults}",
        f"  expired         {verdict.losses}",
        f"  taken back      {verdict.taken_back}, beside these: nobody was told",
        f"  after a wait    {verdict.hand_ons_under_faults}, under faults",
        f"deadlocks         {verdict.deadlocks}",
        f"calls             {verdict.calls}, {unknown}",
        f"uses              {verdict.uses}, {refused}",
        f"longest hand-on   {verdict.longest_hand_on:.3f} s, stalls included",
        "answers",
        *_table(verdict.answers),
        f"faults            {sum(verdict.faults.values())}",
        *_table(verdict.faults),
        f"violations        {len(verdict.violations)}",
        *_violations(verdict),
    ]
    return "\n".join(lines)


def _table(counts: Counter[str]) -> list[str]:
    return [f"  {count:>8}  {name}" for name, count in sorted(counts.items())]


def _violations(verdict: Verdict) -> list[str]:
    lines: list[str] = []
    shown: Counter[str] = Counter()
    for violation in verdict.violations:
        shown[violation.rule] += 1
        if shown[violation.rule] <= SHOWN:
            lines.append(f"  {violation}")
    for rule, count in shown.items():
        if count > SHOWN:
            lines.append(f"  {rule}: {count - SHOWN} more")
    return lines
