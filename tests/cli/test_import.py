"""`botfarm users import` against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from botfarm_server.cli.client import FarmClient

from .conftest import Botfarm, Farm, Serve

HEADER = "login,password,env,domain,labels\n"


def csv_of(path: Path, *rows: str) -> str:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return str(path)


def test_the_same_users_come_from_toml_csv_and_json(
    farm: Farm, botfarm: Botfarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALICE_PASSWORD", "s3cret")
    user = {
        "login": "alice",
        "password": "${ALICE_PASSWORD}",
        "env": "stage",
        "domain": "regular",
        "labels": {"role": "admin", "plan": "free"},
        "secrets": {"totp": "JBSWY3DPEHPK3PXP"},
    }
    (tmp_path / "pool.toml").write_text(
        '[[users]]\nlogin = "alice"\npassword = "${ALICE_PASSWORD}"\nenv = "stage"\n'
        'domain = "regular"\nlabels = { role = "admin", plan = "free" }\n'
        'secrets = { totp = "JBSWY3DPEHPK3PXP" }\n'
    )
    (tmp_path / "pool.json").write_text(json.dumps([user]))
    (tmp_path / "pool.csv").write_text(
        "login,password,env,domain,labels,labels.plan,secrets.totp\n"
        "alice,${ALICE_PASSWORD},stage,regular,role=admin,free,JBSWY3DPEHPK3PXP\n"
    )
    ran = botfarm("users", "import", "pool.toml")
    assert ran.exit_code == 0, ran.err
    assert ran.out == "pool.toml: 1 created, 0 updated, 0 unchanged.\n"
    for name in ("pool.json", "pool.csv", "pool.toml"):
        ran = botfarm("users", "import", name)
        assert ran.out == f"{name}: 0 created, 0 updated, 1 unchanged.\n", ran.err
    lease = farm.lease()
    wants = [{"env": "stage", "domain": "regular"}]
    held = farm.http.put(f"/api/v1/leases/{lease}", json={"wants": wants}).json()
    assert held["users"][0]["password"] == "s3cret"
    assert held["users"][0]["labels"] == user["labels"]
    assert held["users"][0]["secrets"] == user["secrets"]


def test_a_changed_row_updates_and_an_unchanged_one_does_not(
    farm: Farm, botfarm: Botfarm, tmp_path: Path
) -> None:
    rows = [f"user{number},pw,stage,regular,n=1" for number in range(30)]
    path = csv_of(tmp_path / "users.csv", *rows)
    assert "30 created, 0 updated, 0 unchanged" in botfarm("users", "import", path).out
    rows[3] = "user3,another,stage,regular,n=1"
    rows[17] = "user17,pw,stage,regular,n=2"
    rows[21] = "user21,pw,stage,canary,n=1"
    csv_of(tmp_path / "users.csv", *rows, "user30,pw,stage,regular,")
    ran = botfarm("users", "import", path, "--dry-run", "--json")
    assert ran.json == {"created": 1, "updated": 3, "unchanged": 27, "dry_run": True}
    ran = botfarm("users", "import", path, "--dry-run")
    assert "all rows are good. It would be: 1 created, 3 updated" in ran.out
    ran = botfarm("users", "import", path, "--json")
    assert ran.json == {"created": 1, "updated": 3, "unchanged": 27, "dry_run": False}
    ran = botfarm("users", "import", path, "--json")
    assert ran.json == {"created": 0, "updated": 0, "unchanged": 31, "dry_run": False}


def test_rows_with_many_long_secrets_go_in_calls_that_a_server_takes(
    farm: Farm, botfarm: Botfarm, tmp_path: Path
) -> None:
    """And what is wrong with one is told by its own row."""
    secrets = {str(number): '"' * 10_000 for number in range(6)}  # twice that in JSON
    user = {"password": "pw", "env": "stage", "domain": "regular", "secrets": secrets}
    rows = [{**user, "login": f"user{number}"} for number in range(10)]
    (tmp_path / "pool.json").write_text(json.dumps(rows))
    ran = botfarm("users", "import", "pool.json")
    assert ran.out == "pool.json: 10 created, 0 updated, 0 unchanged.\n", ran.err
    rows[6]["env"] = "moon"
    (tmp_path / "pool.json").write_text(json.dumps(rows))
    ran = botfarm("users", "import", "pool.json")
    assert "pool.json: row 7: env: 'moon'" in ran.err


def test_what_the_server_refuses_is_told_by_file_row_and_field(
    farm: Farm, botfarm: Botfarm, tmp_path: Path
) -> None:
    rows = [f"user{number},s3cret,stage,regular," for number in range(60)]
    rows[2] = "user2,s3cret,moon,regular,"
    rows[57] = "user57,s3cret,prod,dark,"
    path = csv_of(tmp_path / "users.csv", *rows)
    ran = botfarm("users", "import", path)
    assert ran.exit_code == 1
    envs, domains = "prod, preprod, stage", "canary, regular"
    assert f"{path}: row 3 (line 4): env: 'moon' is not one of {envs}" in ran.err
    assert (
        f"{path}: row 58 (line 59): domain: 'dark' is not one of {domains}" in ran.err
    )
    assert "nothing was imported" in ran.err
    assert "s3cret" not in ran.err
    assert farm.users() == []


def test_bad_rows_are_told_although_no_server_answers(
    environment: None, botfarm: Botfarm, tmp_path: Path
) -> None:
    path = csv_of(tmp_path / "users.csv", "alice,${UNSET},stage,regular,", "bob,,,,")
    ran = botfarm("users", "import", path, "--url", "http://127.0.0.1:1")
    assert ran.exit_code == 1
    assert f"{path}: row 1 (line 2): password: the environment variable" in ran.err
    for name in ("password", "env", "domain"):
        assert f"{path}: row 2 (line 3): {name}: is missing" in ran.err


def test_rows_that_only_the_server_knows_to_be_bad_are_told_in_the_same_breath(
    farm: Farm, botfarm: Botfarm, tmp_path: Path
) -> None:
    rows = ("alice,pw,stage,regular,", "bob,,stage,regular,", "carol,pw,moon,regular,")
    path = csv_of(tmp_path / "users.csv", *rows)
    ran = botfarm("users", "import", path)
    assert ran.exit_code == 1
    assert f"{path}: row 2 (line 3): password: is missing" in ran.err
    assert f"{path}: row 3 (line 4): env: " in ran.err
    assert farm.users() == []


def test_thousands_of_bad_rows_do_not_fill_the_screen(
    environment: None, botfarm: Botfarm, tmp_path: Path
) -> None:
    rows = [f"user{number},,stage,regular," for number in range(3_000)]
    ran = botfarm("users", "import", csv_of(tmp_path / "users.csv", *rows))
    assert ran.exit_code == 1
    assert ran.err.splitlines()[-1] == "… and 2,950 more"


def test_a_file_that_is_not_there_is_wrong_use(
    environment: None, botfarm: Botfarm
) -> None:
    assert botfarm("users", "import", "missing.toml").exit_code == 2


def test_without_a_sealing_key_an_unchanged_row_is_known_by_its_hash(
    environment: None,
    serve: Serve,
    botfarm: Botfarm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BOTFARM_URL", serve(BOTFARM_SECRET_KEYS="").url)
    path = csv_of(tmp_path / "users.csv", "alice,pw,stage,regular,")
    assert "1 created" in botfarm("users", "import", path).out
    assert "1 unchanged" in botfarm("users", "import", path).out
    csv_of(tmp_path / "users.csv", "alice,other,stage,regular,")
    assert "1 updated" in botfarm("users", "import", path).out


def test_an_interrupted_import_says_how_far_it_came_and_goes_on(
    environment: None,
    serve: Serve,
    botfarm: Botfarm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = serve(BOTFARM_BCRYPT_COST="9")
    monkeypatch.setenv("BOTFARM_URL", running.url)
    path = csv_of(
        tmp_path / "users.csv",
        *(f"user{number},pw,stage,regular," for number in range(40)),
    )
    importing = subprocess.Popen(
        [sys.executable, "-m", "botfarm_server", "users", "import", path],
        env=os.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not running.users():
        assert importing.poll() is None
    # A lease is granted in the middle of it.
    running.lease()
    importing.send_signal(signal.SIGINT)
    _, told = importing.communicate(timeout=60)
    assert importing.returncode == 130
    assert "Traceback" not in told
    assert "Interrupted." in told
    assert "of 40 users are in the farm" in told or "Nothing was imported" in told
    there = len(running.users())
    assert 0 < there < 40
    ran = botfarm("users", "import", path, "--json")
    assert ran.exit_code == 0, ran.err
    assert ran.json["created"] <= 40 - there
    assert len(running.users()) == 40


def test_a_server_that_restarts_in_the_middle_is_waited_for(
    environment: None,
    serve: Serve,
    botfarm: Botfarm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = serve()
    monkeypatch.setenv("BOTFARM_URL", first.url)
    path = csv_of(tmp_path / "users.csv", "alice,pw,stage,regular,")
    posted: list[bool] = []
    post = FarmClient.post

    def post_after_a_restart(
        client: FarmClient, path: str, body: Any, **more: Any
    ) -> Any:
        posted.append(body["dry_run"])
        if posted == [True, False]:
            first.server.stop()
        elif posted == [True, False, False]:
            # As a load balancer leads on to the replica that is there.
            client._http.base_url = httpx.URL(serve().url)
        return post(client, path, body, **more)

    monkeypatch.setattr(FarmClient, "post", post_after_a_restart)
    ran = botfarm("users", "import", path)
    assert ran.exit_code == 0, ran.err
    assert ran.out.endswith("1 created, 0 updated, 0 unchanged.\n")
    assert posted == [True, False, False]


def test_a_server_that_stays_away_ends_the_import_with_how_far_it_came(
    environment: None,
    serve: Serve,
    botfarm: Botfarm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = serve()
    monkeypatch.setenv("BOTFARM_URL", running.url)
    monkeypatch.setattr("botfarm_server.cli.importing.PATIENCE", 0.1)
    rows = [f"user{number},pw,stage,regular," for number in range(100)]
    path = csv_of(tmp_path / "users.csv", *rows)
    post = FarmClient.post

    def post_until_it_stops(
        client: FarmClient, path: str, body: Any, **more: Any
    ) -> Any:
        if not body["dry_run"] and running.users():
            running.server.stop()
        return post(client, path, body, **more)

    monkeypatch.setattr(FarmClient, "post", post_until_it_stops)
    ran = botfarm("users", "import", path)
    assert ran.exit_code == 1
    assert "No server can be reached" in ran.err
    assert "At least 10 of 100 users are in the farm" in ran.err
    assert "Run the same command again" in ran.err


def test_users_are_imported_into_postgresql_too(
    empty_postgresql: str,
    serve: Serve,
    botfarm: Botfarm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = serve(url=empty_postgresql)
    monkeypatch.setenv("BOTFARM_URL", running.url)
    rows = [f"user{number},pw,stage,regular,n={number}" for number in range(25)]
    path = csv_of(tmp_path / "users.csv", *rows)
    assert "25 created, 0 updated, 0 unchanged" in botfarm("users", "import", path).out
    csv_of(tmp_path / "users.csv", *rows[:-1], "user24,pw,stage,regular,n=other")
    assert "0 created, 1 updated, 24 unchanged" in botfarm("users", "import", path).out
    ran = botfarm("users", "list", "--label", "n=other", "--json")
    assert ran.exit_code == 0, (ran.err, running.server.log)
    listed = ran.json
    assert [user["login"] for user in listed] == ["user24"]
    lease = running.lease()
    assert botfarm("leases", "list", "--json").json[0]["id"] == lease
