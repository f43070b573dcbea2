"""`botfarm secrets status|rotate` over the database of a server that leases."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from support.servers import SECRET_KEY

from botfarm_server.cli.output import operator

from .conftest import Botfarm, Farm, Serve

NEW = "bmV3LWtleS1mb3ItdGVzdHMtb2YtMzItYnl0ZXMtLS0="
KILLED_IN_THE_MIDDLE = """
import os
import signal
from botfarm_server.cli.main import run
from botfarm_server.services import rotation

exchange, exchanged = rotation.sealed.exchange, []

async def exchange_until_the_third(connection, kind, exchanges):
    await exchange(connection, kind, exchanges)
    exchanged.append(kind)
    if len(exchanged) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

rotation.BATCH, rotation.sealed.exchange = 1, exchange_until_the_third
run()
"""
"""`botfarm` that is gone when one user's values are sealed anew, and half another's."""
LOGINS = ("alice", "bob", "carol")


def test_secrets_are_sealed_anew_and_what_is_left_is_told(
    serve: Serve, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that starts with a key missing says which one."""
    farm = serve()
    farm.add_user("alice", secrets={"pin": "1234"})
    monkeypatch.setenv("BOTFARM_URL", farm.url)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'served.sqlite3'}")
    refused = botfarm("secrets", "rotate")
    assert (refused.exit_code, "BOTFARM_SECRET_KEYS" in refused.err) == (2, True)

    monkeypatch.setenv("BOTFARM_SECRET_KEYS", NEW)
    lacking = botfarm("secrets", "status")
    assert lacking.exit_code == 1
    assert "cannot be leased" in lacking.err
    refused = botfarm("secrets", "rotate")
    assert (refused.exit_code, "2 values, which were left" in refused.err) == (1, True)

    monkeypatch.setenv("BOTFARM_SECRET_KEYS", f"{NEW},{SECRET_KEY}")
    newest, old = botfarm("secrets", "status", "--json").json
    assert (newest["passwords"], old["passwords"], old["secrets"]) == (0, 1, 1)
    rotated = botfarm("secrets", "rotate")
    assert rotated.exit_code == 0, rotated.err
    assert "sealed anew 1/1" in rotated.err
    assert f"All is sealed with key {newest['name']} now." in rotated.err
    [event] = botfarm("audit", "--kind", "key", "--json").json
    assert (event["action"], event["by"]["kind"]) == ("key.rotate", "command_line")
    assert (event["subject"]["name"], event["by"]["name"]) == (
        newest["name"],
        operator(),
    )
    farm.lease(status=500)  # this server has the old key alone
    farm.add_user("bob")
    table = botfarm("secrets", "status")
    assert table.exit_code == 0
    assert [line.split() for line in table.out.splitlines()[1:]] == [
        [newest["name"], "seals", "1", "1", "0"],
        [old["name"], "opens", "1", "0", "0"],
    ]
    farm.stop()
    served = serve()
    served.stop()
    [said] = [line for line in served.server.log if "is not among" in line]
    assert newest["name"] in said
    assert '"level": "error"' in said


def secrets_told(farm: Farm) -> list[tuple[str, str, str]]:
    """What a lease of all users tells; it is given back."""
    path = f"/api/v1/leases/{uuid.uuid4()}"
    want = {"env": "stage", "domain": "regular", "count": len(LOGINS)}
    held = farm.http.put(path, json={"wants": [want]})
    assert held.status_code == 200, held.text
    assert farm.http.delete(path).status_code == 204
    users = held.json()["users"]
    return sorted((it["login"], it["password"], it["secrets"]["pin"]) for it in users)


def test_a_rotation_that_is_killed_in_the_middle_goes_on_and_frees_the_old_key(
    serve: Serve, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Users of both keys are leased meanwhile, and those of the new one alone after."""
    farm = serve(BOTFARM_SECRET_KEYS=f"{SECRET_KEY},{NEW}")
    for login in LOGINS:
        farm.add_user(login, password=f"of {login}", secrets={"pin": f"pin {login}"})
    all_told = [(login, f"of {login}", f"pin {login}") for login in LOGINS]
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'served.sqlite3'}")
    monkeypatch.setenv("BOTFARM_SECRET_KEYS", f"{NEW},{SECRET_KEY}")
    rotate = [sys.executable, "-c", KILLED_IN_THE_MIDDLE, "secrets", "rotate"]
    assert subprocess.run(rotate, check=False).returncode == -signal.SIGKILL

    newest, old = botfarm("secrets", "status", "--json").json
    assert (newest["passwords"], newest["secrets"]) == (1, 1)
    assert (old["passwords"], old["secrets"]) == (2, 2)
    assert secrets_told(farm) == all_told
    rotated = botfarm("secrets", "rotate")
    assert "sealed anew 2/2" in rotated.err
    assert f"All is sealed with key {newest['name']} now." in rotated.err
    farm.stop()
    assert secrets_told(serve(BOTFARM_SECRET_KEYS=NEW)) == all_told
