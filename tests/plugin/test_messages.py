"""What a tester reads when there is no account, and what to do about it."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.farm import Farm
from support.suites import Suite

CALL = """
    def test_it(bot_user):
        bot_user()
    """


CALLS = (
    CALL
    + """
    def test_too(bot_user):
        bot_user()
    """
)


def told_once(result: pytest.RunResult) -> str:
    """The lines of the first failure, to which the second one points."""
    result.assert_outcomes(failed=2)
    pointer = "No account, for the reason that test_suite.py::test_it tells."
    assert result.outlines.count(pointer) == 1
    return "\n".join(line[4:] for line in result.outlines if line.startswith("E   "))


def failure(result: pytest.RunResult, *, passed: int = 0) -> str:
    """The lines of the one failure, which end in the error."""
    result.assert_outcomes(failed=1, passed=passed)
    return "\n".join(line[4:] for line in result.outlines if line.startswith("E   "))


def test_no_server_and_no_pool_is_told_once_in_full_however_tests_ask(
    suite: Suite,
) -> None:
    """By all workers together, with a line in each further test."""
    suite.write(
        """
        import pytest

        @pytest.fixture(scope="module")
        def signed_in(module_bot_user):
            return module_bot_user()

        @pytest.mark.parametrize("number", range(2))
        def test_call(bot_user, number):
            bot_user()

        @pytest.mark.bot_user
        def test_mark():
            pass

        @pytest.mark.parametrize("number", range(2))
        def test_scope(signed_in, number):
            pass

        def test_catches(bot_user):
            with pytest.raises(pytest.UsageError, match="--botfarm-pool"):
                bot_user()
        """
    )
    result = suite.run("-n", "2", "--junitxml", "junit.xml")
    result.assert_outcomes(failed=2, errors=3, passed=1)
    output = result.stdout.str()
    for way_out in ("--botfarm-url", "BOTFARM_URL", "botfarm.toml", "--botfarm-pool"):
        assert output.count(way_out) == 1
    (first,) = set(
        re.findall(r"\nNo account, for the reason that (.*) tells\.", output)
    )
    assert output.count(f"\nNo account, for the reason that {first} tells.") == 4
    report = (suite.pytester.path / "junit.xml").read_text()
    assert report.count("or name such a file with --botfarm-pool<") == 1


def test_a_wrong_setting_is_told_before_any_test_as_a_wrong_option_is(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOTFARM_URL", "farm.example.com")
    suite.write(CALL)
    result = suite.run("-n", "1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, result.errlines)
    assert line.startswith("ERROR: BOTFARM_URL must be like https://botfarm.example")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_server_that_is_not_there(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("BOTFARM_URL", url)
        suite.write(CALLS.replace("bot_user()", "bot_user('stage', 'regular')"))
        result = suite.run("-n", workers)
    text = told_once(result)
    assert f"The Botfarm server at {url} cannot be reached" in text
    assert "Connection refused" in text
    assert "ends by its TTL" not in result.stdout.str() + result.stderr.str()


def test_a_url_with_a_path_that_the_server_does_not_have(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(CALL)
    url = f"{farm.url}/prefix"
    text = failure(suite.run("--botfarm-url", url))
    assert f"The Botfarm server that answers at {url} has no such path" in text
    assert "--botfarm-url (or BOTFARM_URL) takes the server's address" in text


@pytest.fixture(params=[None, "2"], ids=["no-protocol", "newer-protocol"])
def other_server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str | None]]:
    """A web server that is none of ours, or one of a later time."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            if request.param:
                self.send_header("Botfarm-Protocol", request.param)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_DELETE(self) -> None:
            self.do_PUT()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", request.param
        server.shutdown()
        thread.join()


def test_another_server_or_another_version(
    suite: Suite,
    other_server: tuple[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, protocol = other_server
    monkeypatch.setenv("BOTFARM_URL", url)
    suite.write(CALL.replace("bot_user()", "bot_user('stage', 'regular')"))
    text = failure(suite.run())
    if protocol is None:
        assert (
            f"What answers at {url} (with status 200) is not a Botfarm server" in text
        )
    else:
        assert f"at {url} speaks protocol 2, this plugin protocol 1. Upgrade" in text


@pytest.mark.parametrize("token", ["", "wrong-token-0123456789"])
def test_a_missing_or_wrong_token(
    suite: Suite, pool: str, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("BOTFARM_TOKEN", token)
    suite.write(CALLS)
    result = suite.run()
    text = told_once(result)
    assert "Set BOTFARM_TOKEN" in text
    assert not token or token not in result.stdout.str()


def test_what_cannot_be_leased_is_told_once_and_in_the_words_of_the_test(
    suite: Suite, farm: Farm, pool: str
) -> None:
    locked = farm.add_pool("carol", "dave")
    for user in farm.http.get("/api/v1/users/", params={"domain": locked}).json():
        path = f"/api/v1/users/{user['id']}/quarantine"
        farm.http.post(path, json={"reason": "locked out"}).raise_for_status()
    suite.write(
        f"""
        def test_another_pool(bot_user):
            bot_user("prod")

        def test_quarantine(bot_user):
            bot_user(domain="{locked}")

        def test_env(bot_user):
            bot_user("moon")

        def test_labels(bot_user):
            bot_user(labels={{"role": ""}})

        def test_long_label(bot_user):
            bot_user(labels={{"role": "x" * 300}})

        def test_reasons(bot_user):
            user = bot_user()
            user.quarantine(ValueError("x" * 3000))
            user.quarantine("")
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=6)
    output = result.stdout.str()
    in_quarantine = (
        f"No user in rotation matches stage/{locked}. In quarantine are 2 that match: "
        f"carol@{locked} (locked out) and dave@{locked} (locked out). Bring one back "
        "with `botfarm users restore LOGIN`, which takes `--pool FILE` for accounts"
    )
    for told in (
        f"NoSuchPoolError: No user in rotation matches prod/{pool}. Pools that exist: ",
        in_quarantine,
        "The server refused this: env: 'moon' is not one of prod, preprod, stage.\n",
        "labels must map names to text, like {'role': 'admin'}, not {'role': ''}",
        "The server refused this: labels.role: must have at most 255 characters.\n",
        "The server refused this: reason: must have at least 1 character.\n",
    ):
        assert output.count(told) == 1, told
    assert "(2 users)" in output
    assert "wants[" not in output
    assert "pytest_botfarm/" not in output


def test_a_pool_that_is_too_small_is_told_at_collection_and_without_a_traceback(
    suite: Suite, pool: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user(count=3)
        def test_it():
            pass

        @pytest.mark.bot_user("moon")
        def test_env():
            pass
        """
    )
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user(count=50)
        @pytest.mark.bot_user(count=60)
        def test_all():
            pass
        """,
        "test_more",
    )
    result = suite.run()
    result.assert_outcomes(errors=3)
    output = result.stdout.str()
    assert "Interrupted: 3 errors during collection" in output
    assert "asks for 3 users at once, and only 2 in rotation could meet it" in output
    assert "test_all ask for 110 accounts in all: at most 100 are leased" in output
    assert "The server refused this: env: 'moon' is not one of prod," in output
    assert "pytest_botfarm/" not in output


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ('project_id="zz"', "project_id must be a UUID, not 'zz'"),
        ("count=2", "The mark leases several at once: @pytest.mark.bot_user("),
        ("wait=-1", "wait must be a number of seconds from 0 to 86400, not -1"),
    ],
)
def test_a_wrong_argument_is_told_without_the_source_of_the_plugin(
    suite: Suite, pool: str, argument: str, complaint: str
) -> None:
    suite.write(CALL.replace("bot_user()", f"bot_user({argument})"))
    result = suite.run()
    assert complaint in failure(result)
    output = result.stdout.str()
    assert "make_wish" not in output
    assert "pytest_botfarm/" not in output


def test_a_timeout_names_who_holds_the_accounts_which_tests_and_for_how_long(
    suite: Suite, farm: Farm, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_JOB_URL", "https://ci.example.com/jobs/7")
    suite.write(
        """
        import pathlib
        import time

        def test_holds(bot_user):
            alice, bob = bot_user(), bot_user()
            pathlib.Path("holds").touch()
            while not pathlib.Path("waited").exists():
                time.sleep(0.02)

        def test_waits(bot_user):
            while not pathlib.Path("holds").exists():
                time.sleep(0.02)
            try:
                bot_user(wait=0.3)
            finally:
                pathlib.Path("waited").touch()
        """
    )
    text = failure(suite.run("-n", "2"), passed=1)
    assert re.search(rf"No account became free within \d s for stage/{pool}", text)
    for login in ("alice", "bob"):
        by = r"for \d s by test_suite\.py::test_holds \(worker gw\d"
        assert re.search(rf"  {login}@{pool}: {by}", text)
    assert "https://ci.example.com/jobs/7" in text
    assert "--botfarm-wait" in text
    assert [lease["state"] for lease in farm.leases(pool, state="ended")].count(
        "cancelled"
    ) == 1


def test_a_test_that_waits_for_itself_is_told_to_ask_for_all_at_once(
    suite: Suite, pool: str
) -> None:
    suite.write(
        """
        def test_it(bot_user):
            bot_user(), bot_user()
            bot_user(wait=30)
        """
    )
    text = failure(suite.run())
    assert "Deadlock: a worker waits for accounts that only it has itself" in text
    assert f"has alice@{pool}, bob@{pool} and waits for stage/{pool}" in text
    assert "Ask for all accounts of a test at once" in text


def test_a_pool_file_that_does_not_exist(suite: Suite) -> None:
    suite.write(CALLS.replace("bot_user()", "bot_user('stage', 'regular')"))
    text = told_once(suite.run("--botfarm-pool", "none.toml"))
    assert f"there is no pool file {suite.pytester.path / 'none.toml'}" in text


def test_a_pool_file_that_is_wrong(suite: Suite, pool_file: Path) -> None:
    pool_file.write_text('[[users]]\nlogin = "alice"\n')
    suite.write(CALL)
    text = failure(suite.run())
    assert f"the server for the pool file {pool_file} did not start" in text
    assert "password" in text


def test_the_server_extra_is_missing(suite: Suite, pool_file: Path) -> None:
    """An environment with no more than the base install brings, made of links."""
    base = suite.pytester.mkdir("base")
    installed = Path(pytest.__file__).parents[1]
    needed = (
        *("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"),
        *("httpx", "httpcore", "h11", "anyio", "idna", "certifi", "sniffio"),
        *("typing_extensions.py", "py.py", "exceptiongroup", "tomli"),
    )
    metadata = [path.name for path in installed.glob("pluggy-*.dist-info")]
    for name in (*needed, *metadata):
        if (installed / name).exists():
            (base / name).symlink_to(installed / name)
    repository = Path(__file__).parents[2]
    (base / "pytest_botfarm").symlink_to(repository / "pytest_botfarm")
    suite.write(CALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(base))
        result = suite.pytester.run(
            *(sys.executable, "-S", "-m", "pytest"),
            *("-p", "pytest_botfarm.plugin", "-p", "no:cacheprovider"),
            "test_suite.py",
            timeout=60,
        )
    text = failure(result)
    assert "fastapi" in text
    assert "pip install 'pytest-botfarm[server]'" in text


def test_a_token_that_goes_unencrypted_is_told_once(
    suite: Suite, farm: Farm, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.write("def test_a(bot_user): bot_user()\ndef test_b(bot_user): bot_user()")
    # A name of this machine that does not look like one.
    url = farm.url.replace("127.0.0.1", "127.1")
    result = suite.run("-n", "2", "--botfarm-url", url)
    result.assert_outcomes(passed=2)
    told = [it for it in result.outlines if "unencrypted, and" in it]
    assert len(told) == 1
    assert url in told[0]
