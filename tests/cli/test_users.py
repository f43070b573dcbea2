"""`botfarm users add|list|show|quarantine|restore|remove` on a real server."""

from __future__ import annotations

import io
import json
import sys
import uuid
from pathlib import Path

import pytest
from support.farm import write_pool

from botfarm_server.store.lease_files import DIRECTORY
from pytest_botfarm.idle import make_file

from .conftest import Botfarm, Farm, Serve

WHERE = ("--env", "stage", "--domain", "regular")


def test_add_takes_the_password_from_a_variable_and_never_shows_it(
    farm: Farm, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALICE", "s3cret-of-alice")
    ran = botfarm("users", "add", "alice", *WHERE, "--password-env", "ALICE")
    assert ran.exit_code == 0, ran.err
    assert ran.out.strip() == farm.users()[0]["id"]
    assert ran.err == "Added alice to stage/regular.\n"
    held = farm.lease()
    found = farm.http.put(
        f"/api/v1/leases/{held}",
        json={"wants": [{"env": "stage", "domain": "regular"}]},
    )
    assert found.json()["users"][0]["password"] == "s3cret-of-alice"


def test_what_no_test_has_at_present_is_told_from_what_is_in_use(
    serve: Serve, botfarm: Botfarm, tmp_path: Path
) -> None:
    directory = tmp_path / DIRECTORY
    directory.mkdir()
    farm = serve(url=f"sqlite:///{tmp_path / 'farm.sqlite3'}")
    farm.add_user("alice")
    lease = farm.lease(test_id="test_it")
    file = make_file(str(directory), uuid.UUID(lease))
    assert file is not None

    def told(*command: str) -> str:
        ran = botfarm(*command, "--url", farm.url)
        assert ran.exit_code == 0, ran.err
        return ran.out

    commands = (
        *(("users", "list"), ("users", "show", "alice")),
        *(("leases", "list"), ("leases", "show", lease)),
    )
    file.begin("test_it")
    assert ["idle" in told(*it) for it in commands] == [False] * 4
    assert file.leave()
    assert ["idle" in told(*it) for it in commands] == [True] * 4
    assert not any("held " in told(group, "list") for group in ("users", "leases"))
    file.close()


def test_add_takes_the_password_from_stdin_without_its_line_end(
    farm: Farm, process: Botfarm
) -> None:
    ran = process(
        "users", "add", "bob", *WHERE, "--label", "role=admin", "--label", "a=b=c",
        "--project-id", "7f8e5c52-7b0f-4c5c-a1cf-1d7d3b7d6f11",
        "--password-stdin", "--json", given="s3cret-of-bob\r\n",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.err
    assert ran.json["labels"] == {"role": "admin", "a": "b=c"}
    assert ran.json["project_id"] == "7f8e5c52-7b0f-4c5c-a1cf-1d7d3b7d6f11"
    lease = str(uuid.uuid4())
    wants = [{"env": "stage", "domain": "regular"}]
    held = farm.http.put(f"/api/v1/leases/{lease}", json={"wants": wants}).json()
    assert held["users"][0]["password"] == "s3cret-of-bob"
    assert "s3cret" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "There is no terminal to ask for the password"),
        (("--password-env", "NOT_SET"), "'NOT_SET' is not set"),
        (("--password-env", "EMPTY"), "password: must not be empty"),
        (("--password-env", "LONG"), "password: must be at most 72 bytes"),
        (("--password-env", "LONG", "--password-stdin"), "Give one of"),
        (("--password-env", "LONG", "--label", "role"), "Write --label name=value"),
    ],
)
def test_add_that_is_called_wrongly_ends_with_2_and_says_why(
    options: tuple[str, ...],
    told: str,
    environment: None,
    botfarm: Botfarm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("LONG", "é" * 37)
    ran = botfarm("users", "add", "carol", *WHERE, *options)
    assert ran.exit_code == 2
    assert told in ran.err
    assert "é" not in ran.err


def test_a_password_argument_does_not_exist(
    environment: None, botfarm: Botfarm
) -> None:
    ran = botfarm("users", "add", "carol", *WHERE, "--password", "s3cret")
    assert ran.exit_code == 2
    assert "s3cret" not in ran.err


@pytest.mark.parametrize(
    "refusal",
    [
        ("dave", "stage", "A user with login 'dave' already exists in env 'stage'"),
        ("erin", "moon", "env: 'moon' is not one of prod, preprod, stage"),
    ],
)
def test_add_that_the_server_refuses_ends_with_1(
    refusal: tuple[str, str, str],
    farm: Farm,
    botfarm: Botfarm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    login, env, told = refusal
    farm.add_user("dave")
    monkeypatch.setenv("PW", "s3cret")
    where = ("--env", env, "--domain", "regular")
    ran = botfarm("users", "add", login, *where, "--password-env", "PW")
    assert ran.exit_code == 1
    assert told in ran.err
    assert "s3cret" not in ran.err


def test_list_tells_an_empty_farm_how_to_fill_it(farm: Farm, botfarm: Botfarm) -> None:
    ran = botfarm("users", "list")
    assert (ran.exit_code, ran.out) == (0, "")
    assert "botfarm users import FILE" in ran.err


def test_list_narrows_by_env_domain_project_state_and_label(
    farm: Farm, botfarm: Botfarm
) -> None:
    project = str(uuid.uuid4())
    farm.add_user("admin", labels={"role": "admin", "plan": "free"})
    farm.add_user("canary", domain="canary", env="prod", project_id=project)
    for login in ("held", "free"):
        farm.add_user(login)
    farm.lease()

    def listed(*options: str) -> list[str]:
        return [
            user["login"] for user in botfarm("users", "list", "--json", *options).json
        ]

    assert listed() == ["canary", "admin", "free", "held"]
    assert listed("--env", "prod") == ["canary"]
    assert listed("--domain", "canary") == ["canary"]
    assert listed("--project-id", project) == ["canary"]
    assert len(listed("--state", "held")) == 1
    assert listed("--label", "role=admin", "--label", "plan=free") == ["admin"]
    assert listed("--label", "role=admin", "--label", "plan=gold") == []
    assert botfarm("users", "list", "--env", "moon").err == "No users match.\n"


def test_list_goes_through_all_pages(
    farm: Farm, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botfarm_server.cli.client.PAGE_ROWS", 2)
    for number in range(5):
        farm.add_user(f"user{number}")
    assert len(botfarm("users", "list", "--json").json) == 5


def test_list_fits_80_columns_and_cuts_nothing_off(
    farm: Farm, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = "a-very-long-login-of-a-test-account[1]@subdomain.example.com"
    farm.add_user(login, labels={"role": "administrator", "plan": "enterprise"})
    lines = botfarm("users", "list").out.splitlines()
    assert max(map(len, lines)) <= 80
    column = lines[0].index("ENV")
    assert "".join(line[:column].strip() for line in lines[1:]) == login
    monkeypatch.delenv("COLUMNS")
    row = botfarm("users", "list").out.splitlines()[1]
    assert row.split() == [
        login, "stage", "regular", "free", "role=administrator,", "plan=enterprise",
    ]  # fmt: skip


def test_list_shows_markup_as_it_is_written(farm: Farm, botfarm: Botfarm) -> None:
    farm.add_user("evil[bold]")  # the server takes no control characters
    assert "evil[bold]" in botfarm("users", "list").out


def test_show_finds_a_user_by_login_or_id_and_tells_its_holder(
    farm: Farm, botfarm: Botfarm
) -> None:
    user_id = farm.add_user("frank")
    farm.lease(test_id="tests/test_a.py::test_b", worker_id="gw1", run_id="r1")
    for given in ("frank", user_id):
        ran = botfarm("users", "show", given)
        assert ran.exit_code == 0, ran.err
        for told in (user_id, "held", "tests/test_a.py::test_b", "gw1", "r1"):
            assert told in ran.out
    shown = botfarm("users", "show", "frank", "--json").json
    assert shown["id"] == user_id
    assert shown["lease"]["holder"]["test_id"] == "tests/test_a.py::test_b"
    assert not {"password", "password_hash", "secrets"} & set(shown)


def test_show_tells_the_reason_of_a_quarantine(farm: Farm, botfarm: Botfarm) -> None:
    user_id = farm.add_user("grace")
    farm.http.post(f"/api/v1/users/{user_id}/quarantine", json={"reason": "locked out"})
    ran = botfarm("users", "show", "grace")
    assert "quarantined" in ran.out
    assert "locked out" in ran.out
    assert botfarm("users", "show", "grace", "--json").json["lease"] is None


def test_quarantine_takes_a_user_out_of_rotation_and_restore_brings_it_back(
    farm: Farm, botfarm: Botfarm
) -> None:
    for env in ("stage", "prod"):
        farm.add_user("grace", env)
    farm.lease()
    which = ("grace", "--env", "stage")
    assert botfarm("users", "quarantine", *which).exit_code == 2  # without a reason
    ran = botfarm("users", "quarantine", *which, "--reason", "locked out")
    assert ran.exit_code == 0, ran.err
    assert ran.err.startswith("grace of stage/regular is out of rotation: ")
    assert "It is held" in ran.err
    listed = " ".join(botfarm("users", "list", "--env", "stage").out.split())
    assert "quarantined: locked out" in listed
    assert "@" in botfarm("users", "show", *which, "--json").json["quarantined_by"]
    in_prod = botfarm("users", "list", "--env", "prod", "--json").json
    assert [user["state"] for user in in_prod] == ["free"]
    for told in ("is back in rotation. It was out: locked out (by ", "was in rotation"):
        ran = botfarm("users", "restore", *which)
        assert ran.exit_code == 0, ran.err
        assert ran.err.startswith("grace of stage/regular ")
        assert told in ran.err
    restored = botfarm("users", "restore", *which, "--json").json
    assert (restored["state"], restored["quarantine_reason"]) == ("held", None)


def test_quarantine_is_of_the_farm_of_a_pool_file_as_well(
    environment: None, botfarm: Botfarm, tmp_path: Path
) -> None:
    pool = write_pool(tmp_path / "pool.toml", "alice@example.com")
    which = ("alice@example.com", "--pool", str(pool))
    ran = botfarm("users", "quarantine", *which, "--reason", "locked out")
    assert ran.exit_code == 0, ran.err
    ran = botfarm("users", "restore", *which)
    assert "It was out: locked out" in ran.err


def test_show_asks_for_the_env_of_a_login_that_several_have(
    farm: Farm, botfarm: Botfarm
) -> None:
    farm.add_user("heidi", env="stage")
    in_prod = farm.add_user("heidi", env="prod")
    ran = botfarm("users", "show", "heidi")
    assert ran.exit_code == 1
    assert "several envs: prod, stage. Say which with --env." in ran.err
    assert in_prod in botfarm("users", "show", "heidi", "--env", "prod").out


@pytest.mark.parametrize("command", ["show", "restore", "remove"])
def test_a_user_that_does_not_exist_is_a_refusal(
    command: str, farm: Farm, botfarm: Botfarm
) -> None:
    ran = botfarm("users", command, "nobody", "--env", "prod")
    assert ran.exit_code == 1
    assert "There is no user with login 'nobody' in env 'prod'" in ran.err
    missing = str(uuid.uuid4())
    ran = botfarm("users", command, missing)
    assert (ran.exit_code, ran.err) == (1, f"botfarm: There is no user {missing}.\n")


def test_remove_takes_a_free_user_and_leaves_a_held_one(
    farm: Farm, botfarm: Botfarm
) -> None:
    farm.add_user("ivan")
    lease = farm.lease(test_id="tests/test_a.py::test_b")
    ran = botfarm("users", "remove", "ivan")
    assert ran.exit_code == 1
    assert "held by tests/test_a.py::test_b" in ran.err
    assert "botfarm leases list --user ivan" in ran.err
    farm.http.delete(f"/api/v1/leases/{lease}")
    ran = botfarm("users", "remove", "ivan")
    assert (ran.exit_code, ran.err) == (0, "Removed ivan from stage/regular.\n")
    assert farm.users() == []


def test_json_is_all_that_stands_on_standard_output(
    farm: Farm, process: Botfarm
) -> None:
    farm.add_user("jürgen")
    ran = process("users", "list", "--json", PYTHONIOENCODING="ascii")
    assert (ran.exit_code, ran.err) == (0, "")
    assert json.loads(ran.out)[0]["login"] == "jürgen"
    assert "j\\xfcrgen" in process("users", "list", PYTHONIOENCODING="ascii").out
