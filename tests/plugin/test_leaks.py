"""No secret appears in what a run shows, writes or sends, in whichever way it fails."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support.farm import Farm
from support.leaks import SPELLINGS, Searcher
from support.servers import TOKEN
from support.suites import PLUGINS, Suite, own_environment

from pytest_botfarm import BotfarmClient, Want

LEAKING = Path(__file__).parent / "leaking"
WAYS = re.findall(r"^ *def (test_\w+)", (LEAKING / "ways.py").read_text(), re.MULTILINE)
SAFE = {"test_user_and_user", "test_error_of_the_server", "test_passes_quarantine"}
"""Ways in which nothing is left to mask."""


def scrambled(text: str, length: int) -> str:
    """Characters that stand nowhere else."""
    return hashlib.shake_256(text.encode()).hexdigest(length)


PEM = [f"{scrambled(f'line {number}', 20)}/+=" for number in range(4)]
SECRETS = {
    "password": "Zq7\"vK'x\\2%wö é/9&Lm<T ~b+3=d",
    "totp": "JBSWY3DPEHPK3PXP",
    "key": '"\\'.join(scrambled(f"part {number}", 10) for number in range(15)),
    "pem": "\n".join(["-----BEGIN SECRET-----", *PEM]),
    "token": TOKEN,
    "state": scrambled("cookie", 20),
    "saved": 'xW"q\\8ü7zvJ%2zR',
}
SEARCHER = Searcher(SECRETS)
SPELLED = [
    spelled
    for spelling, spell in SPELLINGS.items()
    if spelling != "base64"  # of which a part that stands alone is not found
    for secret in SECRETS.values()
    for line in secret.splitlines()
    for spelled in spell(line)
]


class Run:
    """A run of the suite that leaks, and all that it leaves behind."""

    def __init__(self, folder: Path, farm: Farm, *arguments: str) -> None:
        self.folder = folder
        shutil.copy(LEAKING / "ways.py", folder / "test_ways.py")
        shutil.copy(LEAKING / "observer.py", folder / "conftest.py")
        (folder / "test_broken.py").write_text(
            "import os\nraise ValueError(dict(os.environ))\n"
        )
        (folder / "pytest.ini").write_text("[pytest]\njunit_logging = all\n")
        (folder / "saved").write_text(SECRETS["saved"])
        (folder / "spelled").write_text("\n".join(SPELLED))
        self.domain = farm.add_pool()
        for login in ("alice", "bob", "carol", "dave"):
            add_user(farm, login, self.domain)
        client = BotfarmClient(farm.url, token=farm.token)
        with client.lease_all(Want("stage", self.domain, count=4)) as users:
            for user in users:
                user.save_state({"cookie": SECRETS["state"]})
        command = [sys.executable, "-m", "pytest", *PLUGINS]
        command += ["--continue-on-collection-errors", "--basetemp=temporary"]
        command += ["--junitxml=junit.xml", "--botfarm-report=report.html"]
        command += ["--log-file=log", "--log-file-level=DEBUG"]
        settings = {
            "BOTFARM_URL": farm.url,
            "BOTFARM_TOKEN": farm.token,
            "BOTFARM_ENV": "stage",
            "BOTFARM_DOMAIN": self.domain,
            "PYTHONASYNCIODEBUG": "1",
        }
        self.result = subprocess.run(
            [*command, *arguments],
            cwd=folder,
            env={**own_environment(), **settings},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def endings(self) -> dict[str, str]:
        """How each test ended, by its name."""
        endings = {"failure": "fails", "error": "fails", "skipped": "skips"}
        return {
            case.attrib["name"]: next(
                (endings[part.tag] for part in case if part.tag in endings), "passes"
            )
            for case in ET.parse(self.folder / "junit.xml").iter("testcase")
            if case.attrib["name"] in WAYS
        }

    def kept(self) -> dict[str, str]:
        """What of each test went to other plugins and to the controller."""
        kept: dict[str, str] = defaultdict(str)
        for path in self.folder.glob("kept-*"):
            for line in path.read_text().splitlines():
                node_id, text = json.loads(line)
                kept[node_id.rpartition("::")[2]] += f"{text}\n"
        return kept

    def leaks(self) -> dict[str, str]:
        outputs = self.kept() | {
            "standard output": self.result.stdout,
            "standard error": self.result.stderr,
            "junit.xml": (self.folder / "junit.xml").read_text(),
            "report.html": (self.folder / "report.html").read_text(),
            "the log file": (self.folder / "log").read_text(),
        }
        return {
            f"{leak} in {name}": where
            for name, text in outputs.items()
            for leak, where in SEARCHER.leaks(text).items()
        }


def add_user(farm: Farm, login: str, domain: str) -> None:
    body = {"login": f"{login}@{domain}", "env": "stage", "domain": domain}
    body["password"] = SECRETS["password"]
    secrets = {name: SECRETS[name] for name in ("totp", "key", "pem")}
    answer = farm.http.post("/api/v1/users/", json={**body, "secrets": secrets})
    assert answer.status_code == 201, answer.text


def ending(way: str) -> str:
    said = way.split("_")[1]
    return said if said in {"passes", "skips"} else "fails"


@pytest.mark.parametrize(
    "options",
    [
        "-vv -rA --showlocals --log-cli-level=DEBUG --log-level=DEBUG --setup-show",
        "--showlocals --durations=0",
        "--full-trace -W error -k message_or_chain_or_warning_or_finalizer",
        "--tb=native -l",
        "-n 2 --tb=short -l -v --log-level=DEBUG -rA",
    ],
)
def test_no_secret_is_in_what_a_run_leaves(
    tmp_path: Path, farm: Farm, options: str
) -> None:
    arguments = [text.replace("_or_", " or ") for text in options.split()]
    run = Run(tmp_path, farm, *arguments)
    assert run.result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "-k" in arguments or run.endings() == {way: ending(way) for way in WAYS}
    assert run.leaks() == {}


def test_each_way_leaks_where_nothing_is_masked(tmp_path: Path, farm: Farm) -> None:
    run = Run(tmp_path, farm, "-p", "no:botfarm-scrubber", "--log-level=DEBUG")
    kept = run.kept()
    assert {way for way in WAYS if not SEARCHER.leaks(kept[way])} == SAFE
    found = " ".join(run.leaks())
    for name in (*SECRETS, "junit.xml", "standard output", "the log file"):
        assert name in found


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_search_finds_each_spelling_of_each_secret(spelling: str) -> None:
    for name, secret in SECRETS.items():
        for form in SPELLINGS[spelling](secret.splitlines()[-1]):
            assert any(leak.startswith(name) for leak in SEARCHER.leaks(f"… {form} …"))


EMBEDDED = """
    import os
    import pathlib
    import psutil

    def test_it(bot_user):
        user = bot_user()
        client = bot_user._session.client()
        token = client._headers["authorization"].partition(" ")[2]
        pathlib.Path("token").write_text(token)
        family = psutil.Process().parent().children(recursive=True)
        arguments = [process.cmdline() for process in family]
        assert any("botfarm_server.embedded" in line for line in arguments)
        pathlib.Path("arguments").write_text(repr(arguments))
        print(vars(client), user.password, dict(os.environ))
        raise ValueError(token, user.password)
    """


def test_a_server_of_the_runs_own_keeps_its_token_and_its_files_to_itself(
    suite: Suite, pool_file: Path
) -> None:
    password = json.dumps(SECRETS["password"])  # as TOML has it, too
    pool_file.write_text(
        f'[[users]]\nlogin = "alice"\npassword = {password}\n'
        'env = "stage"\ndomain = "regular"\n'
    )
    suite.write(EMBEDDED)
    result = suite.run("-n", "1", "--showlocals")
    result.assert_outcomes(failed=1)
    folder = suite.pytester.path
    token = (folder / "token").read_text()
    searcher = Searcher({**SECRETS, "token": token})
    assert searcher.leaks(result.stdout.str() + result.stderr.str()) == {}
    assert searcher.leaks((folder / "arguments").read_text()) == {}
    files = [path for path in (folder / "state").rglob("*/*") if path.is_file()]
    assert {path.name for path in files} >= {"farm.sqlite3", "secret.key"}
    assert {oct(path.stat().st_mode)[-3:] for path in files} == {"600"}
    assert all(token.encode() not in path.read_bytes() for path in files)


def test_a_plugin_that_is_unused_masks_the_token_and_nothing_else(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOTFARM_TOKEN", SECRETS["key"])
    suite.write(
        """
        import os

        def test_its_environment():
            raise ValueError(os.environ["BOTFARM_TOKEN"])

        def test_another(caplog):
            import logging
            logging.error(os.environ["BOTFARM_TOKEN"])
            assert os.environ["BOTFARM_TOKEN"] in caplog.text  # it sees the truth
            assert [1, 2, "three"] == [1, 2, "four"]
        """
    )
    suite.write(
        """
        import os
        import pytest

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_sessionfinish():
            yield
            raise ValueError(os.environ["BOTFARM_TOKEN"])
        """,
        "conftest",
    )
    result = suite.run("--log-cli-level=DEBUG", "--tb=native")
    output = result.stdout.str()
    assert SEARCHER.leaks(output) == {}
    lines = ["  File *in test_its_environment", "    raise *", "ValueError: ***"]
    result.stdout.fnmatch_lines(lines, consecutive=True)
    assert "At index 2 diff: 'three' != 'four'" in output
    assert SEARCHER.leaks(result.stderr.str()) == {}
    result.stderr.fnmatch_lines(["  File *in pytest_sessionfinish", "ValueError: ***"])
    assert result.ret == 1
