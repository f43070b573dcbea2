"""`botfarm leases list|show|break` against a real server."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from .conftest import Botfarm, Farm

TEST = "tests/checkout/test_payment.py::TestPayment::test_pays[visa-3ds]"


def test_list_shows_who_holds_what_within_80_columns(
    farm: Farm, botfarm: Botfarm
) -> None:
    farm.add_user("alice@example.com")
    held = farm.lease(test_id=TEST, worker_id="gw0")
    waiting = farm.lease(status=202, test_id="tests/test_b.py::test_waits")
    ran = botfarm("leases", "list")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    for told in ("LEASE", "STATE", "USERS", "TEST", "WORKER", "HELD FOR", "EXPIRES"):
        assert told in lines[0]
    assert lines[1].startswith(waiting[:8])
    assert "waiting" in lines[1]
    assert "waits" in lines[1]
    row = next(line for line in lines if line.startswith(held[:8]))
    assert "held" in row
    assert "gw0" in row
    column = lines[0].index("TEST"), lines[0].index("WORKER")
    folded = "".join(line[slice(*column)].strip() for line in lines[1:])
    assert TEST in folded


def test_a_lease_that_is_kept_is_told_from_others(farm: Farm, botfarm: Botfarm) -> None:
    farm.add_user("alice")
    lease = farm.lease(test_id=TEST)
    path = f"/api/v1/leases/{lease}"
    body = {"fence": farm.http.get(path).json()["fence"], "seconds": 600}
    kept = farm.http.post(f"{path}/keep", json={**body, "outcome": "failed"})
    assert kept.status_code == 200, kept.text
    row = botfarm("leases", "list").out.splitlines()[1]
    assert row.startswith(f"{lease[:8]}  kept ")
    assert "kept since" in botfarm("leases", "show", lease).out


def test_a_pool_file_that_cannot_be_served_is_told(
    botfarm: Botfarm, environment: None, tmp_path: Path
) -> None:
    ran = botfarm("leases", "list", "--pool", str(tmp_path / "none.toml"))
    assert ran.exit_code == 1
    assert "none.toml did not start: " in ran.err


def test_list_narrows_by_state_run_worker_and_user(
    farm: Farm, botfarm: Botfarm
) -> None:
    alice = farm.add_user("alice")
    farm.add_user("bob")
    first = farm.lease(run_id="run-1", worker_id="gw0")
    second = farm.lease(run_id="run-1", worker_id="gw1")
    waiting = farm.lease(status=202, run_id="run-2")

    def listed(*options: str) -> set[str]:
        ran = botfarm("leases", "list", "--json", *options)
        assert ran.exit_code == 0, ran.err
        return {lease["id"] for lease in ran.json}

    assert listed() == {first, second, waiting}
    assert listed("--state", "held") == {first, second}
    assert listed("--state", "waiting") == {waiting}
    assert listed("--run-id", "run-1") == {first, second}
    assert listed("--run-id", "run-1", "--worker-id", "gw1") == {second}
    assert listed("--user", "alice") == listed("--user", alice)
    assert listed("--user", "alice") | listed("--user", "bob") == {first, second}
    ran = botfarm("leases", "list", "--limit", "1", "--json")
    assert len(ran.json) == 1
    assert "Only the newest 1 are shown; --limit shows more." in ran.err


def test_list_says_so_when_there_is_nothing(farm: Farm, botfarm: Botfarm) -> None:
    ran = botfarm("leases", "list")
    assert (ran.exit_code, ran.out, ran.err) == (0, "", "No leases are live.\n")
    ran = botfarm("leases", "list", "--state", "all", "--run-id", "no-such-run")
    assert (ran.exit_code, ran.err) == (0, "No leases match.\n")
    ran = botfarm("leases", "list", "--user", "nobody")
    assert ran.exit_code == 1
    assert "There is no user with login 'nobody'" in ran.err
    assert botfarm("leases", "list", "--state", "lost").exit_code == 2


def test_show_takes_an_id_or_how_it_begins(farm: Farm, botfarm: Botfarm) -> None:
    farm.add_user("alice")
    lease = farm.lease(test_id=TEST, run_id="run-1", host="ci-7")
    for given in (lease, lease[:8], lease[:8].upper()):
        ran = botfarm("leases", "show", given)
        assert ran.exit_code == 0, ran.err
        for told in (lease, "held", "stage/regular", "alice", TEST, "run-1", "ci-7"):
            assert told in ran.out.replace("\n" + " " * 12, "")
    assert botfarm("leases", "show", lease[:8], "--json").json["id"] == lease


def test_a_lock_of_the_first_api_never_expires(farm: Farm, botfarm: Botfarm) -> None:
    user_id = farm.add_user("alice")
    acquired = farm.http.post(f"/api/v1/users/{user_id}/acquire").json()
    ran = botfarm("leases", "show", acquired["lease_id"])
    assert ["expires", "in", "never"] in [line.split() for line in ran.out.splitlines()]


def test_break_takes_the_lease_away_and_tells_the_reason(
    farm: Farm, botfarm: Botfarm
) -> None:
    farm.add_user("alice")
    lease = farm.lease()
    ran = botfarm("leases", "break", lease[:8], "--reason", "the runner is gone")
    assert ran.exit_code == 0
    assert ran.err.startswith(f"Broke lease {lease} (alice).\nThey rest until ")
    assert [user["state"] for user in farm.users()] == ["resting"]
    ran = botfarm("leases", "show", lease[:8])
    for told in ("revoked", "the runner is gone", "ended at"):
        assert told in ran.out
    again = botfarm("leases", "break", lease)
    assert again.exit_code == 1
    assert f"Lease {lease} ended" in again.err


def test_break_hands_on_at_once_what_a_dead_holder_had(
    farm: Farm, botfarm: Botfarm
) -> None:
    farm.add_user("alice")
    lease = farm.lease()
    ran = botfarm("leases", "break", lease, "--holder-is-dead")
    assert (ran.exit_code, ran.err) == (0, f"Broke lease {lease} (alice).\n")
    assert [user["state"] for user in farm.users()] == ["free"]


def test_break_without_a_reason_says_who_did_it(farm: Farm, botfarm: Botfarm) -> None:
    farm.add_user("alice")
    broken = botfarm("leases", "break", farm.lease(), "--json").json
    assert broken["state"] == "revoked"
    assert "on the command line" in broken["end_reason"]
    assert "@" in broken["end_reason"]


@pytest.mark.parametrize("command", ["show", "break"])
def test_a_lease_that_is_not_there_is_a_refusal(
    command: str, farm: Farm, botfarm: Botfarm
) -> None:
    missing = str(uuid.uuid4())
    ran = botfarm("leases", command, missing)
    assert ran.exit_code == 1
    assert f"There is no lease {missing}" in ran.err
    ran = botfarm("leases", command, missing[:8])
    assert ran.exit_code == 1
    assert "No live or recent lease has an id that begins with" in ran.err
    ran = botfarm("leases", command, "test_pays")
    assert ran.exit_code == 2
    assert "is not a lease's id" in ran.err


def test_an_id_that_is_cut_too_short_names_the_leases(
    farm: Farm, botfarm: Botfarm
) -> None:
    for login in ("alice", "bob"):
        farm.add_user(login)
    leases = [
        f"abcdef{number}0-0000-4000-8000-{uuid.uuid4().hex[:12]}" for number in (1, 2)
    ]
    wants = [{"env": "stage", "domain": "regular"}]
    for lease in leases:
        farm.http.put(f"/api/v1/leases/{lease}", json={"wants": wants})
    ran = botfarm("leases", "show", "abcdef")
    assert ran.exit_code == 1
    assert all(lease in ran.err for lease in leases)
