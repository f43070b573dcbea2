"""Where settings come from, and which one wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_botfarm.holding import Identity, job_url
from pytest_botfarm.settings import read_settings, read_token

INI = """
[pytest]
botfarm_url = http://ini
botfarm_env = ini
botfarm_domain = ini
"""


def test_the_command_line_wins_over_the_environment_and_that_over_the_ini_file(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini(INI)
    config = pytester.parseconfig("--botfarm-url", "http://line/")
    settings = read_settings(
        config, {"BOTFARM_URL": "http://variable", "BOTFARM_ENV": "variable"}
    )
    assert (settings.url, settings.env, settings.domain) == (
        "http://line",
        "variable",
        "ini",
    )


def test_a_token_is_not_taken_from_the_command_line(pytester: pytest.Pytester) -> None:
    with pytest.raises(pytest.UsageError) as refused:
        pytester.parseconfig("--botfarm-token", "s3cret")
    assert "set BOTFARM_TOKEN, or BOTFARM_TOKEN_FILE" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_without_any_setting_there_is_no_server_and_a_test_waits_for_five_minutes(
    pytester: pytest.Pytester,
) -> None:
    settings = read_settings(pytester.parseconfig(), {})
    assert (settings.url, settings.pool) == (None, None)
    assert (settings.wait, settings.ttl) == (300, 60)


def test_a_pool_file_beside_the_ini_file_is_found(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]")
    pool = pytester.path / "botfarm.toml"
    pool.touch()
    assert read_settings(pytester.parseconfig(), {}).pool == pool
    assert (
        read_settings(pytester.parseconfig(), {"BOTFARM_URL": "http://a"}).pool is None
    )


def test_a_pool_is_relative_to_where_it_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    ini = pytester.makeini("[pytest]\nbotfarm_pool = accounts.toml")
    inner = pytester.mkdir("inner")
    monkeypatch.chdir(inner)
    config = pytester.parseconfig("-c", str(ini), "--rootdir", str(inner))
    assert read_settings(config, {}).pool == pytester.path / "accounts.toml"
    named = read_settings(config, {"BOTFARM_POOL": "mine.toml"})
    assert named.pool == inner / "mine.toml"


def test_a_report_is_relative_to_where_pytest_starts_unless_the_ini_file_names_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    ini = pytester.makeini("[pytest]\nbotfarm_report = ini.html")
    inner = pytester.mkdir("inner")
    monkeypatch.chdir(inner)
    config = pytester.parseconfig("-c", str(ini), "--rootdir", str(inner))
    assert read_settings(config, {}).report == pytester.path / "ini.html"
    named = read_settings(config, {"BOTFARM_REPORT": "out/run.html"})
    assert named.report == inner / "out" / "run.html"


def test_the_stronger_of_url_and_pool_wins(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nbotfarm_url = http://ini")
    config = pytester.parseconfig("--botfarm-pool", "mine.toml")
    settings = read_settings(config, {})
    assert settings.url is None
    assert settings.pool == pytester.path / "mine.toml"


def test_url_and_pool_in_the_same_place_exclude_each_other(
    pytester: pytest.Pytester,
) -> None:
    with pytest.raises(pytest.UsageError, match="BOTFARM_URL and BOTFARM_POOL exclude"):
        read_settings(
            pytester.parseconfig(), {"BOTFARM_URL": "http://a", "BOTFARM_POOL": "b"}
        )


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("BOTFARM_TTL", "4", "BOTFARM_TTL must be a number of seconds from 5 to 86400"),
        ("BOTFARM_TTL", "nan", "BOTFARM_TTL must be a number"),
        ("BOTFARM_TTL", "90000", "BOTFARM_TTL must be a number"),
        ("BOTFARM_WAIT", "-1", "BOTFARM_WAIT must be a number of seconds from 0"),
        ("BOTFARM_WAIT", "long", "BOTFARM_WAIT must be a number"),
        ("BOTFARM_CAP_WORKERS", "2", "BOTFARM_CAP_WORKERS must be true or false, not"),
        (
            "BOTFARM_KEEP_ON_FAIL",
            "1441",
            "BOTFARM_KEEP_ON_FAIL must be a number of minutes from 0 to 1440",
        ),
        ("BOTFARM_POOL_LIMIT", "0", "BOTFARM_POOL_LIMIT must be a whole number from 1"),
        ("BOTFARM_POOL_LIMIT", "2.5", "BOTFARM_POOL_LIMIT must be a whole number"),
        ("BOTFARM_URL", "farm.example.com", "BOTFARM_URL must be like https://"),
        (
            "BOTFARM_URL",
            "https://me:secret@farm",
            "BOTFARM_URL must not contain a pass",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(
    pytester: pytest.Pytester, name: str, text: str, complaint: str
) -> None:
    with pytest.raises(pytest.UsageError, match=complaint) as caught:
        read_settings(pytester.parseconfig(), {name: text})
    assert "secret" not in str(caught.value)


def test_a_flag_is_true_or_false_and_either_on_the_command_line(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\nbotfarm_cap_workers = True")
    assert read_settings(pytester.parseconfig(), {}).cap_workers
    off = {"BOTFARM_CAP_WORKERS": "false"}
    assert not read_settings(pytester.parseconfig(), off).cap_workers
    assert read_settings(
        pytester.parseconfig("--botfarm-cap-workers", "."), off
    ).cap_workers
    assert not read_settings(
        pytester.parseconfig("--no-botfarm-cap-workers", "."), {}
    ).cap_workers


def test_a_wrong_option_is_refused_as_it_is_read(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(pytest.UsageError, match="--botfarm-ttl: must be a number"):
        pytester.parseconfig("--botfarm-ttl", "3")


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("token-of-file\n")
    assert read_token({}) is None
    assert read_token({"BOTFARM_TOKEN": "token"}) == "token"
    assert read_token({"BOTFARM_TOKEN_FILE": str(file)}) == "token-of-file"


def test_a_token_that_cannot_be_read_or_sent_is_told_without_showing_it(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        pytest.UsageError, match=r"BOTFARM_TOKEN_FILE .* cannot be read"
    ):
        read_token({"BOTFARM_TOKEN_FILE": str(tmp_path / "none")})
    with pytest.raises(pytest.UsageError, match="must be printable ASCII") as caught:
        read_token({"BOTFARM_TOKEN": "gehe\u00efm"})
    assert "gehe" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "page"),
    [
        ({}, None),
        (
            {"GITHUB_RUN_ID": "7", "GITHUB_REPOSITORY": "us/it"},
            "https://github.com/us/it/actions/runs/7",
        ),
        ({"CI_JOB_URL": "https://gitlab/jobs/7"}, "https://gitlab/jobs/7"),
        ({"BUILD_URL": "https://jenkins/7"}, "https://jenkins/7"),
    ],
)
def test_the_page_of_the_ci_job_is_known(
    environment: dict[str, str], page: str | None
) -> None:
    assert job_url(environment) == page


def test_a_very_long_test_id_is_cut_to_what_the_server_takes() -> None:
    test_id = Identity().holder("x" * 3_000).test_id
    assert test_id is not None
    assert len(test_id) == 2_000
