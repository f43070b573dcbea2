"""The checker finds nothing in a sound run, and each rule where it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from torture.checker import RULES, check
from torture.evidence import (
    Ask,
    Call,
    Evidence,
    Fault,
    GrantRow,
    LeaseRow,
    Rules,
    Sample,
    Seen,
    TakenBack,
    Told,
    UserRow,
    WantRow,
)
from torture.history import History
from torture.made_up import ALICE, STAGE, change, over, sound, told, with_a_knot
from torture.reading import evidence_of

Break = Callable[[Evidence], object]


def test_nothing_is_found_in_a_sound_run() -> None:
    verdict = check(sound())
    assert verdict.violations == []
    assert verdict.leases == 3
    assert verdict.unknown_calls == 1
    assert verdict.refused_uses == 1
    assert verdict.longest_hand_on == pytest.approx(0.1)


def late_expiry(evidence: Evidence) -> None:
    change(evidence.leases, 1, ended=19.5)
    change(evidence.leases, 2, granted=20.6, ended=21.0)


def overtaken(evidence: Evidence) -> None:
    earlier = LeaseRow("earlier", 0, "cancelled", [STAGE], 9.0, None, None, 19.0)
    evidence.leases.append(earlier)


def fence_shrinks(evidence: Evidence) -> None:
    for rows in (evidence.leases, evidence.grants):
        change(rows, 0, fence=2)
        change(rows, 1, fence=1)


def taken_back(evidence: Evidence) -> None:
    """A fourth one is granted the user at 21.0, and gone before it is told."""
    gone = LeaseRow("gone", 4, "abandoned", [STAGE], 21.0, None, None, 36.2)
    evidence.leases.append(gone)
    evidence.taken_back.append(TakenBack("gone", {ALICE: 4}, 21.0, 21.2))
    change(evidence.users, 0, fence=4)


def taken_back_from_a_holder(evidence: Evidence) -> None:
    taken_back(evidence)
    change(evidence.taken_back, 0, start=19.0)


def taken_back_in_silence(evidence: Evidence) -> None:
    taken_back(evidence)
    evidence.taken_back.clear()


PROD = WantRow("prod", "regular")
TWO = WantRow("stage", "regular", count=2)


def never_handed_on(evidence: Evidence) -> None:
    """A waiter that is granted nothing, though the user is free from 20.0 on."""
    waiter = LeaseRow("waiter", 4, "cancelled", [STAGE], 19.5, None, None, 24.0)
    evidence.leases.append(waiter)


def never_handed_two(evidence: Evidence) -> None:
    never_handed_on(evidence)
    change(evidence.leases, 3, wants=[TWO])
    evidence.users.append(UserRow("bob", "stage", "regular", {}, fence=0))


def passed_for_ever(evidence: Evidence) -> None:
    """A waiter for two that one after the other passes, longer than it must bear."""
    evidence.rules = replace(evidence.rules, patience=5.0)
    never_handed_two(evidence)
    change(evidence.leases, 3, number=0, created=9.0, ended=19.0)
    evidence.leases.append(
        LeaseRow("long", -1, "released", [STAGE], 8.0, 8.0, 90.0, 30.0, 4, "long")
    )
    evidence.grants.append(GrantRow(4, "long", "bob"))
    evidence.asks.append(Ask("client", "long", 8.0, 1.0, 8.1, "held"))
    change(evidence.users, 1, fence=4)


def deadlock_of_nobody(evidence: Evidence) -> None:
    """The third is refused, though it has nothing and nobody else waits."""
    change(evidence.leases, 2, state="cancelled", granted=None, ended=12.5)
    change(evidence.calls, 5, end=12.6, status=409, code="deadlock", told=[])
    change(evidence.asks, 2, end=12.6, outcome="DeadlockError")


def deadlock_beside_a_free_user(evidence: Evidence) -> None:
    """The refused one has a user, and the holder of the other does not wait."""
    deadlock_of_nobody(evidence)
    change(evidence.leases, 2, party="worker")
    evidence.users.append(UserRow("bob", "prod", "regular", {}, fence=4))
    evidence.leases.append(
        LeaseRow("own", 0, "released", [PROD], 9.0, 9.0, 90.0, 20.0, 4, party="worker")
    )
    evidence.grants.append(GrantRow(4, "own", "bob"))


def left_in_a_knot(evidence: Evidence) -> None:
    """Nobody is refused, until the one gives up."""
    change(evidence.leases, -1, ended=50.0, reason=None)
    change(evidence.leases, -2, granted=50.5, ended=51.0)
    change(evidence.leases, -3, ended=50.5)
    change(evidence.leases, -4, ended=51.0)
    change(evidence.asks, -1, end=50.5)


def waits_for_who_waits_for_somebody_else(evidence: Evidence) -> None:
    """The one waits for a third party, which does not wait, and then gives back."""
    change(evidence.leases, -2, wants=[PROD])
    evidence.users.append(UserRow("erin", "prod", "regular", {}, fence=7))
    third = LeaseRow("three has", 3, "released", [PROD], 30.0, 30.0, 95.0, 32.0, 7)
    evidence.leases.append(third)
    evidence.grants.append(GrantRow(7, "three has", "erin"))


def abandoned_at_once(evidence: Evidence) -> None:
    change(evidence.leases, 2, state="abandoned", granted=None, ended=11.6)


def refused(outcome: str) -> Break:
    return lambda it: change(it.asks, 0, outcome=outcome)


def nobody_reached(**last: float | None) -> Break:
    """The first one's calls fail for half a minute, and a fault explains all."""

    def break_it(evidence: Evidence) -> None:
        refused("ServerNotReachableError")(evidence)
        change(evidence.asks, 0, process="client-0.1", end=41.0)
        evidence.faults.append(Fault("cut", "0-1", 9.0, 50.0))
        silent = Call("client-0.1", "ask", "first", 10.0, failed=10.1, server=1)
        again = [replace(silent, start=it, failed=it + 0.1) for it in (20.0, 40.0)]
        before = Call("client-0.1", "renew", None, 9.0, 9.1, 200)
        evidence.calls += [before, silent, *again]
        change(evidence.calls, -1, **last)

    return break_it


def nobody_reached_for_a_moment(evidence: Evidence) -> None:
    nobody_reached()(evidence)
    change(evidence.asks, 0, end=15.0)


def without_a_rest(evidence: Evidence) -> None:
    change(evidence.leases, 2, granted=18.0)


def told_late(evidence: Evidence) -> None:
    change(evidence.calls, 5, end=95.0)


def memory(evidence: Evidence) -> None:
    evidence.samples = [
        Sample("server", 1, at, 5, 50, 100_000_000 + at * 4_000_000)
        for at in range(100)
    ]


def descriptors(evidence: Evidence) -> None:
    evidence.samples = [
        Sample("server", 1, at, 5, 50 + at, 100_000_000) for at in range(100)
    ]


def few_under_faults(evidence: Evidence, **needed: int) -> None:
    """Two leases came after the first fault, and both had waited."""
    evidence.rules = replace(evidence.rules, **needed)
    evidence.faults.append(Fault("cut", "0-0", 11.0, 11.5))


BROKEN: list[tuple[str, Break]] = [
    ("two holders", lambda it: change(it.leases, 0, ended=13.0)),
    ("two holders", lambda it: change(it.leases, 1, ended=None, state="held")),
    ("fence did not grow", fence_shrinks),
    ("fence did not grow", lambda it: change(it.users, 0, fence=2)),
    ("fence did not grow", taken_back_in_silence),
    ("two holders", taken_back_from_a_holder),
    ("fence did not grow", lambda it: change(it.leases, 2, fence=9)),
    ("expired before its time", lambda it: change(it.leases, 1, expires=17.6)),
    ("released after its expiry", lambda it: change(it.leases, 2, expires=19.9)),
    ("held after its expiry", late_expiry),
    ("left behind", lambda it: change(it.users, 0, lease="third")),
    ("left behind", lambda it: change(it.leases, 2, ended=None, state="held")),
    ("overtaken", overtaken),
    ("handed on late", lambda it: change(it.leases, 2, granted=20.6, ended=21.0)),
    ("waited for what was free", never_handed_on),
    ("waited for what was free", never_handed_two),
    ("passed for too long", passed_for_ever),
    ("no deadlock", deadlock_of_nobody),
    ("no deadlock", deadlock_beside_a_free_user),
    ("abandoned too soon", abandoned_at_once),
    ("came to nothing", refused("LeaseEndedError")),
    ("came to nothing", refused("DeadlockError")),
    ("came to nothing", refused("ServerNotReachableError")),
    ("came to nothing", nobody_reached(server=0)),
    ("came to nothing", nobody_reached(failed=None, status=202, end=40.1)),
    ("came to nothing", nobody_reached_for_a_moment),
    ("came to nothing", refused("WrongAnswerError")),
    ("no rest", without_a_rest),
    ("told late", told_late),
    ("revoked by nobody", lambda it: change(it.leases, 0, state="revoked")),
    (
        "told what is not so",
        lambda it: change(it.calls, 0, told=[Told("first", "held")]),
    ),
    ("two clients believed", lambda it: change(it.beliefs, 0, end=12.2)),
    ("believed without a lease", lambda it: change(it.beliefs, 1, end=17.6)),
    ("believed without a lease", lambda it: change(it.beliefs, 1, start=11.9)),
    ("used without a lease", lambda it: change(it.uses, 1, stamp=17.6)),
    ("used without a lease", lambda it: change(it.uses, 0, lease="unknown")),
    (
        "old fence accepted",
        lambda it: it.seen.append(Seen(ALICE, 2, "second", accepted=True)),
    ),
    ("answer not allowed", lambda it: change(it.calls, 4, status=404)),
    ("answer not allowed", lambda it: change(it.calls, 0, status=500, code="oh")),
    ("told what is not so", lambda it: change(it.calls, 0, told=[told("first", 2)])),
    ("told what is not so", lambda it: change(it.calls, 1, told=[over("third")])),
    ("told what is not so", lambda it: change(it.calls, 6, told=[told("first", 1)])),
    ("told what is not so", lambda it: change(it.calls, 0, told=[told("none", 1)])),
    (
        "grant that nobody knows",
        lambda it: it.asks.pop(0),
    ),
    ("never answered", lambda it: change(it.asks, 0, end=None)),
    ("never answered", lambda it: change(it.asks, 0, end=10.0 + 20.0 + 76.0)),
    ("logged", lambda it: it.log_lines.append("ERROR: deadlock detected")),
    (
        "too many connections",
        lambda it: it.samples.append(Sample("server", 1, 1.0, 14, 50, 1)),
    ),
    (
        "file descriptors grew",
        lambda it: it.samples.append(Sample("server", 1, 1.0, 5, 5_000, 1)),
    ),
    ("file descriptors grew", descriptors),
    ("memory grew", memory),
    (
        "does not count",
        lambda it: setattr(it, "rules", Rules(leases_before_faults=4)),
    ),
    ("does not count", lambda it: few_under_faults(it, leases_under_faults=3)),
    ("does not count", lambda it: few_under_faults(it, hand_ons_under_faults=3)),
]


BROKEN_KNOTS: list[tuple[str, Break]] = [
    ("knot was left", left_in_a_knot),
    ("no deadlock", waits_for_who_waits_for_somebody_else),
    ("no deadlock", lambda it: change(it.leases, -1, ended=None)),
    ("no deadlock", lambda it: change(it.leases, -2, created=31.6)),
    ("not the youngest", lambda it: change(it.leases, -2, number=8)),
    ("does not count", lambda it: setattr(it, "rules", Rules(deadlocks=2))),
]


@pytest.mark.parametrize(
    ("rule", "break_it"), BROKEN, ids=[f"{n}-{it[0]}" for n, it in enumerate(BROKEN)]
)
def test_a_broken_rule_is_found(rule: str, break_it: Break) -> None:
    evidence = sound()
    break_it(evidence)
    assert rule in check(evidence).broken()


@pytest.mark.parametrize(
    ("rule", "break_it"),
    BROKEN_KNOTS,
    ids=[f"{n}-{it[0]}" for n, it in enumerate(BROKEN_KNOTS)],
)
def test_a_broken_rule_on_deadlocks_is_found(rule: str, break_it: Break) -> None:
    evidence = with_a_knot()
    break_it(evidence)
    assert rule in check(evidence).broken()


def test_each_rule_is_broken_by_some_history() -> None:
    for rule in RULES:
        found = False
        for made_up, broken in ((sound, BROKEN), (with_a_knot, BROKEN_KNOTS)):
            for _, break_it in broken:
                evidence = made_up()
                break_it(evidence)
                found = found or any(rule(evidence))
        assert found, rule.__name__


def test_a_deadlock_that_is_true_is_no_violation() -> None:
    verdict = check(with_a_knot())
    assert verdict.violations == []
    assert verdict.deadlocks == 1


def test_who_waits_for_a_holder_that_does_not_wait_is_in_no_knot() -> None:
    evidence = with_a_knot()
    left_in_a_knot(evidence)
    evidence.leases.pop()
    assert check(evidence).violations == []


def test_a_grant_that_was_taken_back_has_its_fence_and_leaves_no_gap() -> None:
    evidence = sound()
    taken_back(evidence)
    assert check(evidence).violations == []


def test_a_killed_client_owes_no_answer() -> None:
    evidence = sound()
    change(evidence.asks, 0, end=None)
    evidence.killed = {"client": 10.0}
    assert check(evidence).violations == []


def test_time_in_which_servers_were_stalled_does_not_count_as_late() -> None:
    evidence = sound()
    late_expiry(evidence)
    evidence.faults.append(Fault("stop-database", "database", 17.0, 19.0, stalls=0.0))
    assert "held after its expiry" not in check(evidence).broken()
    change(evidence.faults, 0, stalls=None)
    assert "held after its expiry" in check(evidence).broken()


def test_a_waiter_that_is_not_heard_of_is_passed_before_it_is_abandoned() -> None:
    evidence = sound()
    overtaken(evidence)
    evidence.rules = replace(evidence.rules, poll_grace=5.0)
    change(evidence.leases, 3, state="abandoned", created=12.5, number=3)
    change(evidence.leases, 2, number=4)
    assert check(evidence).violations == []
    change(evidence.leases, 3, ended=21.0)
    assert "overtaken" in check(evidence).broken()


def test_a_waiter_that_came_at_the_instant_of_a_grant_is_not_overtaken() -> None:
    evidence = sound()
    overtaken(evidence)
    change(evidence.leases, 3, created=18.6)
    assert check(evidence).violations == []


def test_an_attempt_that_met_trouble_may_come_to_nothing() -> None:
    evidence = sound()
    refused("DatabaseUnavailableError")(evidence)
    change(evidence.calls, 0, end=None, status=None, told=[])
    evidence.calls.append(replace(evidence.calls[0], start=9.95))
    assert check(evidence).violations == []


def test_a_place_is_given_up_in_vain_for_a_shorter_time() -> None:
    evidence = sound()
    nobody_reached_for_a_moment(evidence)
    given_up = Call("client-0.1", "end", "first", 10.2, failed=14.9, server=1)
    evidence.calls.append(given_up)
    assert check(evidence).violations == []
    change(evidence.calls, -1, server=0)
    assert check(evidence).broken() == {"came to nothing"}


def test_nobody_may_be_reached_for_as_long_as_faults_were_in_the_way() -> None:
    evidence = sound()
    nobody_reached()(evidence)
    assert check(evidence).violations == []


def test_a_user_of_a_dead_holder_has_no_rest() -> None:
    evidence = sound()
    without_a_rest(evidence)
    change(evidence.leases, 1, party="client dead")
    evidence.calls.append(Call("client", "release", "dead", 17.4, 17.6, 200))
    assert check(evidence).violations == []
    change(evidence.calls, -1, start=17.7, end=17.9)  # its lease was over by then
    assert check(evidence).broken() == {"no rest"}


def test_what_its_own_client_gave_back_may_be_told_as_over() -> None:
    evidence = sound()
    refused("LeaseEndedError")(evidence)
    change(evidence.asks, 0, end=12.2)
    assert check(evidence).violations == []


def test_what_is_kept_for_an_impatient_waiter_is_not_free_for_another() -> None:
    evidence = sound()
    never_handed_on(evidence)
    evidence.rules = replace(evidence.rules, patience=1.0)
    pair = LeaseRow("pair", 3, "cancelled", [TWO], 18.0, None, None, 24.0)
    change(evidence.leases, 2, number=2)
    evidence.leases.append(pair)
    assert check(evidence).violations == []


def test_a_waiter_for_two_may_be_passed_while_it_is_patient() -> None:
    evidence = sound()
    passed_for_ever(evidence)
    evidence.rules = replace(evidence.rules, patience=9.7)
    assert check(evidence).violations == []


def test_a_waiter_for_another_pool_or_label_is_not_overtaken() -> None:
    for want in (WantRow("prod", "regular"), WantRow("stage", "regular", {"a": "b"})):
        evidence = sound()
        overtaken(evidence)
        change(evidence.leases, 3, wants=[want])
        assert check(evidence).violations == []


def test_the_two_users_of_one_lease_are_no_two_holders() -> None:
    evidence = sound()
    evidence.grants.append(GrantRow(4, "third", "bob"))
    change(evidence.leases, 2, fence=4)
    change(evidence.calls, 5, told=())
    assert check(evidence).violations == []


def test_what_has_no_end_in_the_history_is_unknown(tmp_path: Path) -> None:
    history = History(tmp_path, "client")
    history.write("ask", lease="l", wait=1.0)
    for n in (1, 2):
        history.write("call", n=n, operation="ask", lease="l", server=0, waits=1.0)
    history.write("answer", n=2, status=202, code=None, told=[])
    history.write("held", lease="l", users={ALICE: 1}, deadline=history.now() + 60)
    history.write("use", n=1, lease="l", user=ALICE, fence=1, stamp=1.0)
    history.write("killed", victim="client")
    history.close()
    with (tmp_path / "client.jsonl").open("a") as torn:
        torn.write('{"at":1,"kind":"us')
    evidence = evidence_of(tmp_path, Rules())
    unknown, known = evidence.calls
    assert (unknown.end, unknown.status, known.status) == (None, None, 202)
    assert [use.accepted for use in evidence.uses] == [None]
    assert isinstance(evidence.asks[0], Ask)
    assert isinstance(unknown, Call)
    assert evidence.asks[0].end is None
    # What a process believed ends with the process, though its deadline was later.
    assert evidence.beliefs[0].end == evidence.killed["client"]
