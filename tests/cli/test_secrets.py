"""`botfarm secrets status|rotate` over the database of a server that leases."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.servers import SECRET_KEY

from botfarm_server.cli.output import operator

from .conftest import Botfarm, Serve

NEW = "bmV3LWtleS1mb3ItdGVzdHMtb2YtMzItYnl0ZXMtLS0="


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
