"""A run that brings its own server: one, only when wanted, and never for longer."""

from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path

import httpx
import pytest
from support.farm import eventually, farm_of, servers_over
from support.suites import Suite

from pytest_botfarm.embedded import EmbeddedServer, EmbeddedServerError

ONE_SERVER = """
    import os
    import pathlib

    import psutil
    import pytest

    @pytest.mark.parametrize("number", range({tests}))
    @pytest.mark.bot_user(count=2)
    def test_it(bot_user, number):
        pool = str(pathlib.Path("botfarm.toml").resolve())
        servers = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if pool in (process.info["cmdline"] or [])
        ]
        assert len(servers) == 1
        pathlib.Path(f"seen-{{servers[0]}}").touch()
    """


def nothing_is_left(pool_file: Path) -> None:
    """No server runs on, and what the run leased is free."""
    eventually(lambda: not servers_over(pool_file), "the server has ended")
    with farm_of(pool_file) as farm:
        assert farm.leases() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["-n0"],
        ["-p", "no:xdist"],
        ["-n2", "--dist", "load"],
        ["-n2", "--dist", "loadscope"],
        ["-n2", "--dist", "loadfile"],
        ["-n2", "--dist", "worksteal"],
    ],
    ids=" ".join,
)
def test_one_server_serves_all_workers_and_ends_with_the_run(
    suite: Suite, pool_file: Path, arguments: list[str]
) -> None:
    suite.write(ONE_SERVER.format(tests=3))
    suite.write(ONE_SERVER.format(tests=3), "test_other")
    suite.run(*arguments).assert_outcomes(passed=6)
    assert len(list(suite.pytester.path.glob("seen-*"))) == 1
    assert servers_over(pool_file) == []


def test_it_works_where_xdist_is_not_installed(suite: Suite, pool_file: Path) -> None:
    suite.write(ONE_SERVER.format(tests=1))
    suite.write(
        """
        import importlib.util
        import sys

        assert importlib.util.find_spec("xdist") is None
        """,
        "conftest",
    )
    blocker = suite.pytester.mkdir("without_xdist")
    (blocker / "sitecustomize.py").write_text(
        "import sys\nsys.modules['xdist'] = None\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(blocker))
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        result = suite.run("-p", "pytest_botfarm.plugin")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_that_leases_nothing_starts_no_server_and_imports_nothing_heavy(
    suite: Suite, pool_file: Path, workers: str
) -> None:
    suite.write(
        """
        import sys

        def pytest_unconfigure():
            heavy = {"httpx", "httpcore", "fastapi", "sqlalchemy", "botfarm_server"}
            assert not heavy & sys.modules.keys()
        """,
        "conftest",
    )
    suite.write("def test_it(): pass")
    suite.run("-n", workers).assert_outcomes(passed=1)
    assert not (suite.pytester.path / "state").exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unused_plugin_loads_next_to_nothing(suite: Suite, workers: str) -> None:
    suite.write(
        """
        import sys

        def pytest_unconfigure():
            ours = {name for name in sys.modules if name.startswith("pytest_botfarm")}
            assert ours == {
                "pytest_botfarm",
                "pytest_botfarm._version",
                "pytest_botfarm.fixtures",
                "pytest_botfarm.hookspecs",
                "pytest_botfarm.options",
                "pytest_botfarm.plugin",
                "pytest_botfarm.report",
            }
        """,
        "conftest",
    )
    suite.write("def test_it(): pass")
    suite.run("-n", workers).assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_modules_of_the_suite_do_not_stand_in_for_modules_of_the_server(
    suite: Suite, pool_file: Path, workers: str
) -> None:
    for name in ("secrets", "structlog"):
        suite.write(f"raise RuntimeError('the {name} of the suite')", name)
    suite.write("def test_it(bot_user): bot_user()")
    # pytester's own way to run would put the suite on PYTHONPATH.
    with suite.start("-n", workers) as run:
        assert run.wait(60) == 0, suite.output()


def test_its_token_and_its_files_are_its_users_own(pool_file: Path) -> None:
    """Neither its arguments nor its environment tell the token, and none is refused."""
    with farm_of(pool_file) as farm:
        assert farm.leases() == []
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = httpx.get(f"{farm.url}/api/v1/users", headers=headers)
            assert answer.status_code == 401
        [server] = servers_over(pool_file)
        assert farm.token not in repr((server.cmdline(), server.environ()))
        state = pool_file.parent / "state"
        modes = {stat.filemode(path.stat().st_mode) for path in state.rglob("*")}
        assert modes == {"drwx------", "-rw-------"}
    state.chmod(0o770)
    refused = EmbeddedServer(pool_file)
    with pytest.raises(EmbeddedServerError, match=f"chmod go-w {state}"):
        refused.endpoint()
    refused.stop()


HOLDS = """
    import pathlib
    import time

    import pytest

    @pytest.mark.parametrize("number", range(2))
    def test_it(bot_user, number):
        bot_user()
        pathlib.Path(f"holds-{number}").touch()
        time.sleep(60)
    """


def test_ctrl_c_leaves_the_server_time_to_take_the_accounts_back(
    suite: Suite, pool_file: Path
) -> None:
    suite.write(HOLDS)
    with suite.start("-n", "2") as run:
        eventually(
            lambda: len(list(suite.pytester.path.glob("holds-*"))) == 2,
            "each worker holds an account",
        )
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(30) == pytest.ExitCode.INTERRUPTED
    nothing_is_left(pool_file)


def test_a_dead_workers_accounts_are_free_at_once(
    suite: Suite, pool_file: Path
) -> None:
    suite.write(
        """
        import os

        def test_dies(bot_user):
            bot_user(), bot_user()
            os._exit(1)

        def test_next(bot_user):
            bot_user(wait=5), bot_user(wait=5)
        """
    )
    result = suite.run("-n", "1")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["worker gw0 crashed while *::test_dies held *"])
    nothing_is_left(pool_file)


def test_two_runs_at_once_over_one_pool_file_share_the_locks(
    suite: Suite, pool_file: Path
) -> None:
    """Each run checks that nobody else has its account, and both overlap."""
    suite.write(
        """
        import os
        import pathlib
        import time

        import pytest

        def wait_for_the_other_run(bot_user):
            pathlib.Path(f"run-{os.getpid()}").touch()
            while len(list(pathlib.Path().glob("run-*"))) < 2:
                time.sleep(0.01)

        @pytest.mark.parametrize("number", range(15))
        def test_it(bot_user, number):
            user = bot_user()
            if number == 0:
                wait_for_the_other_run(bot_user)
            mine = pathlib.Path(f"held-{user.login}")
            mine.touch(exist_ok=False)
            time.sleep(0.02)
            mine.unlink()
        """
    )
    with suite.start("-n0") as other:
        suite.run("-n0").assert_outcomes(passed=15)
        assert other.wait(30) == 0, suite.output()
    nothing_is_left(pool_file)


def test_a_forked_child_that_lives_on_does_not_keep_the_server(
    suite: Suite, pool_file: Path
) -> None:
    suite.write(
        """
        import os
        import pathlib
        import time

        def test_it(bot_user):
            bot_user()
            child = os.fork()
            if child == 0:
                os.close(1), os.close(2)
                time.sleep(30)
                os._exit(0)
            pathlib.Path("child").write_text(str(child))
            os.kill(os.getpid(), 9)
        """
    )
    suite.pytester.run(
        "sh",
        "-c",
        f"{sys.executable} -m pytest -p no:randomly > output 2>&1",
        timeout=60,
    )
    try:
        eventually(lambda: not servers_over(pool_file), "the server has ended")
    finally:
        os.kill(int((suite.pytester.path / "child").read_text()), signal.SIGKILL)
