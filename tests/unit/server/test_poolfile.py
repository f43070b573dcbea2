"""Accounts in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from botfarm_server.poolfile import PoolFileError, read_pool_file

ROW = {"login": "alice", "password": "pw", "env": "stage", "domain": "regular"}


def toml(**changes: str) -> str:
    lines = [
        f"{name} = {json.dumps(text)}" for name, text in {**ROW, **changes}.items()
    ]
    return "\n".join(["[[users]]", *lines, ""])


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pool.toml", toml() + 'labels = { role = "admin" }\n'),
        ("pool.json", json.dumps([{**ROW, "labels": {"role": "admin"}}])),
        ("pool.json", json.dumps({"users": [{**ROW, "labels": {"role": "admin"}}]})),
        (
            "pool.csv",
            "login,password,env,domain,labels\nalice,pw,stage,regular,role=admin\n",
        ),
    ],
)
def test_the_same_account_in_each_format(tmp_path: Path, name: str, text: str) -> None:
    [user] = read_pool_file(write(tmp_path, name, text), {}).users
    assert (user.login, user.env, user.domain) == ("alice", "stage", "regular")
    assert user.password.get_secret_value() == "pw"
    assert user.labels == {"role": "admin"}


def test_variables_come_from_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, "p.toml", toml(password="a-${PW}", login="$${x}"))
    [user] = read_pool_file(path, {"PW": "s3cret"}).users
    assert user.password.get_secret_value() == "a-s3cret"
    assert user.login == "${x}"


def test_every_bad_row_is_named_with_file_row_and_field(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "p.toml",
        toml()
        + toml(password="${UNSET}", login="b")
        + toml(password="x" * 73, login="c")
        + toml(surprise="PLANTED", login="d")
        + toml(),
    )
    with pytest.raises(PoolFileError) as error:
        read_pool_file(path, {})
    lines = str(error.value).splitlines()
    assert [line.removeprefix(f"{path}: ")[:16] for line in lines] == [
        "row 2: password:",
        "row 3: password:",
        "row 4: surprise:",
        "row 5: login: 'a",
    ]
    assert "UNSET" in lines[0]
    assert "PLANTED" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.yaml", "", ".toml, .json or .csv"),
        ("p.toml", "users = [", "p.toml"),
        ("p.toml", "", "no users"),
        ("p.toml", "user = []", "unknown: user"),
        ("p.json", "{", "p.json"),
        ("p.json", "3", "a list of users"),
        ("p.toml", toml() + "[[users]]\n", "row 2: login"),
        ("p.toml", "envs = 'x'\n" + toml(), "envs: a list of names"),
        ("p.csv", "login,password\na,b,c\n", "row 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_words(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(PoolFileError) as error:
        read_pool_file(write(tmp_path, name, text), {})
    assert said in str(error.value)


def test_a_missing_file_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(PoolFileError, match="No such file"):
        read_pool_file(tmp_path / "none.toml", {})


def test_a_file_that_is_not_text_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PoolFileError, match="not UTF-8"):
        read_pool_file(path, {})
