"""A pool file's rows: every bad one is named with file, row, line and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from botfarm_server.poolfile import PoolFileError, read_pool_file

ROW = {"login": "alice", "password": "s3cret", "env": "stage", "domain": "regular"}
USER = 'login = "{0}"\npassword = "s3cret"\nenv = "stage"\ndomain = "regular"\n'


def refused(path: Path, text: str | bytes, **environment: str) -> list[str]:
    """What is said about the file, line by line, without the file's name."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PoolFileError) as error:
        read_pool_file(path, environment)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    assert "s3cret" not in str(error.value)
    return [line.removeprefix(f"{path}: ") for line in lines]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "pool.toml",
            f"[[users]]\n{USER.format('alice')}" + 'labels = { role = "admin" }\n',
        ),
        ("pool.json", json.dumps([{**ROW, "labels": {"role": "admin"}}])),
        ("pool.json", json.dumps({"users": [{**ROW, "labels": {"role": "admin"}}]})),
        (
            "pool.csv",
            "login,password,env,domain,labels\nalice,s3cret,stage,regular,role=admin\n",
        ),
    ],
)
def test_the_same_account_in_each_format(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    [user] = read_pool_file(path, {}).users
    assert (user.login, user.env, user.domain) == ("alice", "stage", "regular")
    assert user.password.get_secret_value() == "s3cret"
    assert user.labels == {"role": "admin"}


def test_toml_rows_are_named_with_their_lines(tmp_path: Path) -> None:
    text = f"[[users]]\n{USER.format('a')}\n# ---\n[[ users ]]\n" + USER.format("a")
    assert refused(tmp_path / "pool.toml", text) == [
        "row 2 (line 8): login: row 1 (line 1) has the same login for the same env"
    ]
    inline = 'users = [{login = "a"}]'
    assert refused(tmp_path / "pool.toml", inline)[0] == "row 1: password: is missing"


def test_csv_rows_are_named_with_their_lines_past_cells_of_several(
    tmp_path: Path,
) -> None:
    text = (
        'login,password,env,domain\na,"two\nlines",stage,regular\n\nb,,stage,regular\n'
    )
    assert refused(tmp_path / "pool.csv", text) == [
        "row 2 (line 5): password: is missing"
    ]


def test_all_that_is_wrong_with_a_row_is_told_at_once(tmp_path: Path) -> None:
    text = (
        '[[users]]\nlogin = "${A}-${B}"\npassword = "${"\nenv = 7\nrole = "x"\n'
        'secrets = { totp = "${C}" }\n'
    )
    told = refused(tmp_path / "pool.toml", text, A="1")
    assert [line.split(": ")[1] for line in told] == [
        "login", "password", "secrets.totp", "env", "domain", "role",
    ]  # fmt: skip
    assert "the environment variable B is not set" in told[0]
    assert "write $${ for a literal ${" in told[1]
    assert "is no field of a user; known are login, password" in told[5]


def test_variables_are_resolved_everywhere_and_can_be_escaped(tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    path.write_text(
        '{"users": [{"login": "${NAME}@${HOST}", "password": "a$${b}$$c", '
        '"env": "stage", "domain": "regular", "labels": {"host": "${HOST}"}}]}'
    )
    user = read_pool_file(path, {"NAME": "alice", "HOST": "x"}).users[0]
    assert user.login == "alice@x"
    assert user.password.get_secret_value() == "a${b}$$c"
    assert user.labels == {"host": "x"}


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("login,password,env,domain,role", "role: no columns of a user"),
        ("login,env", "password, domain: missing"),
        ("login,password,env,domain,env", "env: there twice"),
        ("alice,s3cret,stage,regular", "some names: no columns of a user"),
        ("login;password;env;domain", "some names: no columns of a user"),
        ("login,password,env,domain,labels.", "labels.: no columns of a user"),
    ],
)
def test_a_csv_header_is_checked_before_the_rows(
    header: str, told: str, tmp_path: Path
) -> None:
    lines = refused(tmp_path / "pool.csv", f"{header}\na,b,c,d,e\nf,g,h,i,j\n")
    assert len(lines) == 1
    assert lines[0].startswith(f"line 1 is to name the columns: {told}")


def test_a_csv_row_with_too_many_cells_or_a_bare_label_is_refused(
    tmp_path: Path,
) -> None:
    text = "login,password,env,domain,labels\na,p,stage,regular,role\n"
    assert refused(tmp_path / "pool.csv", text + "b,p,stage,regular,,s3cret\n") == [
        "row 1 (line 2): labels: is to be written as name=value;name=value",
        "row 2 (line 3): the row: it has more cells than the header has names",
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("pool.yaml", "", "the name has to end in .toml, .json or .csv"),
        ("pool.toml", "", "no users; add"),
        ("pool.json", "[]", "no users; add"),
        ("pool.json", "7", "a list of users, or a table `users`, is expected"),
        ("pool.json", "{", "Expecting property name"),
        ("pool.json", "[" * 100_000, "it is nested too deeply"),
        ("pool.json", '["s3cret"]', "row 1: the row: a table of fields is expected"),
        ("pool.toml", "users = ", "Invalid value"),
        ("pool.toml", b"\xff\xfe", "it is not UTF-8 text"),
        ("pool.csv", "login,password,env,domain\n", "no users; add"),
        ("pool.csv", 'login,password,env,domain\na,"b', "line 2: unexpected end"),
        ("pool.toml", "user = []", "unknown: user. Known: users, envs, domains"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    name: str, text: str | bytes, told: str, tmp_path: Path
) -> None:
    assert refused(tmp_path / name, text)[0].startswith(told)


def test_a_vocabulary_is_a_list_of_names(tmp_path: Path) -> None:
    text = f'envs = []\ndomains = "x"\n[[users]]\n{USER.format("a")}'
    assert refused(tmp_path / "pool.toml", text) == [
        "envs: a list of names is expected",
        "domains: a list of names is expected",
    ]


def test_a_file_that_is_missing_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(PoolFileError, match="No such file"):
        read_pool_file(tmp_path / "pool.toml", {})


def test_what_a_server_refuses_is_told_in_the_files_terms(tmp_path: Path) -> None:
    path = tmp_path / "pool.toml"
    path.write_text("".join(f"[[users]]\n{USER.format(it)}" for it in "abcd"))
    pool = read_pool_file(path, {})
    errors = [
        ("users[1].env", "is unknown"),
        ("users[1].login", "the same as users[0]"),
        ("users[0]", "is odd"),
        ("users[9].env", "of no row"),
        ("body", "is too large"),
    ]
    assert pool.located(errors, [1, 3]) == [
        f"{path}: row 4 (line 16): env: is unknown",
        f"{path}: row 4 (line 16): login: the same as row 2 (line 6)",
        f"{path}: row 2 (line 6): the row: is odd",
        f"{path}: users[9].env: of no row",
        f"{path}: body: is too large",
    ]
