"""Installs the wheel of a folder in new environments and uses it as people would.

Without extras it brings the plugin and nothing of the server; with `server` it
migrates, serves, and runs a suite in embedded mode.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
PATIENCE = 30.0
"""Seconds for a command, or for a server to start or to end."""


class Installed:
    """A new environment with the wheel, outside of the checkout."""

    def __init__(self, folder: Path, requirement: str) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        for requirements in (["--upgrade", "pip"], [requirement]):
            install = ("install", "-q", "-c", str(CONSTRAINTS), *requirements)
            # From wheels alone: no package runs code, or downloads, as it is installed.
            self.run("pip", *install, "--only-binary", ":all:")
        self.run("pip", "check")

    def variables(self, **more: str) -> dict[str, str]:
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        foreign = ("BOTFARM_", "COV", "DATABASE_URL", "PYTEST_", "PYTHONPATH")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return {**inherited, "PATH": path, **more}

    def run(
        self,
        program: str,
        *arguments: str,
        code: int = 0,
        more: Mapping[str, str] | None = None,
    ) -> str:
        ended = subprocess.run(
            [self.bin / program, *arguments],
            check=False,
            cwd=self.folder,
            env=self.variables(**(more or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=10 * PATIENCE,
        )
        if ended.returncode != code:
            sys.exit(f"{ended.stdout}\n{program} {arguments}: {ended.returncode}")
        return ended.stdout


def expect(holds: object, claim: str) -> None:
    if not holds:
        sys.exit(f"not so: {claim}")


def check_files(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "botfarm_server/py.typed",
        "pytest_botfarm/py.typed",
        "pytest_botfarm/timeline.html",
        "botfarm_server/alembic/env.py",
        "botfarm_server/alembic/script.py.mako",
    ):
        expect(wanted in files, f"the wheel has {wanted}")
    versions = [name for name in files if "/alembic/versions/" in name]
    expect(versions, "the wheel has migrations")
    licence = [name for name in files if name.endswith("licenses/LICENSE")]
    expect(licence, "the wheel has the licence")
    tops = {name.split("/")[0] for name in files}
    strange = {
        top
        for top in tops - {"botfarm_server", "pytest_botfarm"}
        if not top.endswith(".dist-info")
    }
    expect(not strange, f"the wheel has nothing else: {strange}")


def check_sbom(wheel: Path, installed: Installed) -> None:
    document = json.loads(wheel.with_suffix(".cdx.json").read_text())
    told = {(it["name"], it["version"]) for it in document["components"]}
    listed = json.loads(installed.run("pip", "list", "--format", "json"))
    brought = {(it["name"].lower().replace("_", "-"), it["version"]) for it in listed}
    brought = {
        it for it in brought if it[0] not in {"pip", "pytest-botfarm", "setuptools"}
    }
    expect(told == brought, f"the SBOM lists what is installed: {told ^ brought}")


def check_plugin_alone(installed: Installed) -> None:
    server = ["fastapi", "sqlalchemy", "pydantic", "uvicorn", "bcrypt", "typer"]
    program = (
        "import importlib.util as u, sys; "
        "print([name for name in sys.argv[1:] if u.find_spec(name)])"
    )
    found = installed.run("python", "-c", program, *server)
    expect(found.strip() == "[]", f"without extras nothing of the server: {found}")
    options = installed.run("pytest", "--help")
    expect("--botfarm-url" in options, "pytest --help shows --botfarm-url")
    advice = installed.run("botfarm", "--version", code=1)
    expect("pytest-botfarm[server]" in advice, f"botfarm names the extra: {advice}")
    expect("Traceback" not in advice, f"botfarm shows no traceback: {advice}")


def check_server(installed: Installed) -> None:
    version = installed.run("botfarm", "--version")
    expect("0." in version, f"a version: {version}")
    database = {"DATABASE_URL": f"sqlite:///{installed.folder}/botfarm.sqlite3"}
    installed.run("botfarm", "db", "upgrade", more=database)
    installed.run("botfarm", "db", "check", more=database)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [installed.bin / "python", "-m", "botfarm_server"],
        cwd=installed.folder,
        env=installed.variables(BOTFARM_PORT=str(port), **database),
    )
    try:
        expect(
            answer_of(server, f"http://127.0.0.1:{port}/health")
            == {"status": "healthy"},
            "python -m botfarm_server answers /health",
        )
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE)
    finally:
        server.kill()
        server.wait()


def answer_of(server: subprocess.Popen[bytes], url: str) -> object:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def check_embedded(installed: Installed) -> None:
    suite = installed.folder / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\n")
    (suite / "botfarm.toml").write_text(
        dedent("""\
            [[users]]
            login = "ada"
            password = "analytical-engine"
            env = "stage"
            domain = "regular"
        """)
    )
    (suite / "test_leases.py").write_text(
        dedent("""\
            def test_an_account_is_leased(bot_user):
                assert bot_user("stage", "regular").login == "ada"

            def test_its_password_comes_with_it(bot_user):
                user = bot_user("stage", "regular")
                assert user.password == "analytical-engine"
        """)
    )
    printed = installed.run("pytest", "-q", str(suite))
    expect("2 passed" in printed, f"an embedded suite passes: {printed}")


def main() -> None:
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    check_files(wheel)
    with tempfile.TemporaryDirectory() as folder:
        alone, server = Path(folder, "alone"), Path(folder, "server")
        alone.mkdir()
        server.mkdir()
        check_plugin_alone(Installed(alone, str(wheel)))
        with_server = Installed(server, f"{wheel}[server]")
        check_sbom(wheel, with_server)
        check_server(with_server)
        check_embedded(with_server)


if __name__ == "__main__":
    main()
