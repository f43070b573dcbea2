"""Runs what developers run, and sets up what that needs in `.venv` beside this file.

It takes Python 3.10 or newer and nothing else. The file parses on older ones as well,
so that they can be told.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - older ones are told
    sys.exit(
        "Botfarm needs Python 3.10 or newer, and this is {}.{}. Run it with a newer "
        "one, for example: python3.12 tasks.py".format(*sys.version_info)
    )

ROOT = Path(__file__).resolve().parent
PROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST_PINS = ROOT / "tests" / "compatibility" / "oldest.txt"
SUITE = ("pytest", "-q", "--dist", "worksteal", "-n")
SUITE_LIMIT = 16 * 60.0
"""Seconds for the whole suite on two cores, and some more."""
PLUGIN_UNMEASURED = (
    "affinity",
    "async",
    "clients",
    "crashes",
    "embedded",
    "endings",
    "foresight",
    "heartbeats",
    "idle",
    "leaks",
    "messages",
    "scopes",
    "telling",
    "timeline",
)
UNMEASURED = (
    "tests/acceptance",
    "tests/api/test_access_against_model.py",
    "tests/compatibility",
    "tests/concurrency",
    "tests/contract/races",
    "tests/contract/test_paging.py",
    "tests/contract/test_query_plans.py",
    "tests/docs",
    "tests/fuzz",
    "tests/migrations",
    *(f"tests/plugin/test_{name}.py" for name in PLUGIN_UNMEASURED),
    "tests/torture",
)
"""They run whole suites and servers, or the same code over and over, which the others
measure: it would only slow them down."""
OVER_POSTGRESQL = "postgresql"
"""In the names of tests that run over SQLite as well, but for a few. They are measured
there alone: nearly all is the same code, and measured it takes thrice as long."""
EVERY_VERSION = (
    "tests/unit",
    "tests/acceptance/test_quickstart.py",
    "tests/plugin/test_async.py",
    (
        "tests/concurrency/test_processes.py::"
        "test_of_fifty_acquires_of_one_user_one_succeeds"
    ),
)
"""What each Python runs: rules, parallel suites in embedded mode, every event loop, and
server processes over SQLite and PostgreSQL."""
STEP_LIMIT = 5 * 60.0
STOP_LIMIT = 20.0


class TaskError(Exception):
    """The message is for the person at the terminal; `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Environment:
    """A virtual environment in the checkout, installed anew only when that is due."""

    def __init__(self, folder: str, *requirements: str) -> None:
        self.path = ROOT / folder
        self.python = str(self.path / "bin" / "python")
        self.requirements = ["--editable", ".[server]", *requirements]
        self.base = sys.executable
        self.version = sys.version

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        # Without bytecode every process of a run would compile the packages anew.
        foreign = {"PYTHONHOME", "PYTHONDONTWRITEBYTECODE"}
        inherited = {k: v for k, v in os.environ.items() if k not in foreign}
        search_path = f"{self.path / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        own = {"PATH": search_path, "VIRTUAL_ENV": str(self.path)}
        return {**inherited, **own, **(more or {})}

    def set_up(self) -> None:
        """Install, unless the stamp tells that the same was installed from the same."""
        stamp = self.path / "botfarm-stamp"
        source, wanted = self._source(), " ".join(self.requirements)
        installed = stamp.read_text().splitlines() if stamp.exists() else []
        if installed[:1] != [source]:
            installed = [source]
            stamp.unlink(missing_ok=True)
        if wanted in installed:
            return
        print(f"Installing into {self.path.name}: once, a minute or so.", flush=True)
        self._install()
        stamp.write_text("\n".join([*installed, wanted]) + "\n")

    def _install(self) -> None:
        if not self._usable():
            self._create()
        self._pip("pip")
        self._pip(*self.requirements, "--build-constraint", str(CONSTRAINTS))

    def _source(self) -> str:
        pins = b"".join(
            path.read_bytes() for path in (CONSTRAINTS, OLDEST_PINS, PROJECT)
        )
        return hashlib.sha256(pins + self.version.encode()).hexdigest()

    def _usable(self) -> bool:
        """Whether the environment works and is of the Python that it should be of."""
        if Path(sys.prefix) == self.path:
            return True
        return version_of(self.python, "import pip") == self.version

    def _create(self) -> None:
        if not version_of(self.base, "import ensurepip, venv"):
            raise TaskError(
                f"{self.base} cannot make virtual environments. On Debian and Ubuntu: "
                "apt install python3-venv"
            )
        run_quietly([self.base, "-m", "venv", "--clear", str(self.path)])

    def _pip(self, *requirements: str) -> None:
        command = [self.python, "-m", "pip", "install", "--quiet", "--upgrade"]
        command += ["--disable-pip-version-check", "--constraint", str(CONSTRAINTS)]
        run_quietly([*command, *requirements])


def version_of(python: str, program: str = "") -> str | None:
    """What `sys.version` is in a Python that works and can run a program."""
    command = [python, "-c", f"{program}\nimport sys; print(sys.version)"]
    try:
        printed = subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return printed.removesuffix("\n")


class VersionEnvironment(Environment):
    """Of another Python than this one, with the wheel in the place of the checkout."""

    def __init__(self, name: str, base: str, version: str) -> None:
        super().__init__(f".venv-{name}")
        self.requirements = [".[server]", "--group", "test"]
        self.base, self.version = base, version

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        inherited = super().variables(more)
        # A checkout there would be tried in the place of the wheel.
        return {name: it for name, it in inherited.items() if name != "PYTHONPATH"}

    def install_wheel(self, wheel: str) -> None:
        self._pip("--force-reinstall", "--no-deps", wheel)


class SuiteEnvironment(Environment):
    """Where suites of tests/compatibility run, with the checkout on their path.

    A layer has the packages of DEVELOPMENT as well, and installs what they lack: anew
    they would take four times as long.
    """

    def __init__(self, folder: str, *requirements: str, is_layer: bool = False) -> None:
        super().__init__(folder)
        self.requirements = list(requirements)
        self.is_layer = is_layer

    def _install(self) -> None:
        python = DEVELOPMENT.python  # which has a pip of the version that we want
        run_quietly([python, "-m", "venv", "--clear", "--without-pip", str(self.path)])
        paths = [str(ROOT), *([_packages(python)] if self.is_layer else [])]
        (Path(_packages(self.python)) / "paths.pth").write_text("\n".join(paths))
        command = [python, "-m", "pip", "--python", self.python, "install", "--quiet"]
        # Bytecode is written for what is used alone, when it is used first.
        run_quietly([*command, "--no-compile", *self.requirements])


def _packages(python: str) -> str:
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return run_quietly([python, "-c", program]).strip()


QUICKSTART = Environment(".venv", "pytest-xdist")
DEVELOPMENT = Environment(".venv", "--group", "dev")
# The peers are pytest plugins, which every test run beside them would load.
BENCHMARKS = Environment(".venv-benchmarks", "--group", "benchmarks", "pytest-xdist")
# Without a browser there is nothing for the tools of browsers to do.
TOOLS = ("compatibility", *(["browsers"] if shutil.which("chromium") else []))
SUITES = (
    SuiteEnvironment(
        ".venv-compatibility",
        *("--constraint", str(CONSTRAINTS)),
        *(part for group in TOOLS for part in ("--group", group)),
        is_layer=True,
    ),
    SuiteEnvironment(".venv-oldest", "--requirement", str(OLDEST_PINS)),
)
FUZZING = SuiteEnvironment(
    ".venv-fuzz", "--constraint", str(CONSTRAINTS), "--group", "fuzz", is_layer=True
)


def set_up_tests() -> None:
    for environment in (DEVELOPMENT, *SUITES, FUZZING):
        environment.set_up()


def run(command: list[str], env: dict[str, str], folder: Path = ROOT) -> int:
    """The command's exit code, as shells put it: 128 and the number of a signal."""
    with subprocess.Popen(command, cwd=folder, env=env) as process:
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                continue  # it has got the Ctrl-C as well, and ends by itself
            return code if code >= 0 else 128 - code


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a leader of a process group, and all that it has started there."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)  # it may clean up
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_quietly(
    command: list[str],
    env: dict[str, str] | None = None,
    limit: float = STEP_LIMIT,
) -> str:
    """What the command prints. A `TaskError` shows it if the command fails."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        in_time = True
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            in_time = False
            ending = f"took longer than {limit:.0f} s"
        else:
            ending = f"ended with {process.returncode}"
        finally:
            stop(process)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if process.returncode or not in_time:
        raise TaskError(f"{printed}\n{' '.join(command)}\n{ending}")
    return printed


class Steps:
    """Runs an environment's commands quietly, a line each, until one fails."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def __call__(
        self,
        name: str,
        command: str,
        *arguments: str,
        limit: float = STEP_LIMIT,
        variables: Mapping[str, str] | None = None,
    ) -> str:
        env = self.environment.variables(variables)
        program = shutil.which(command, path=env["PATH"]) or command
        began = time.monotonic()
        try:
            printed = run_quietly([program, *arguments], env, limit)
        except TaskError as error:
            raise TaskError(f"{error}\nFAILED: {name}", error.code) from None
        if printed.startswith("NOT CHECKED"):
            print(printed.strip(), flush=True)
        else:
            print(f"ok  {name} ({time.monotonic() - began:.1f} s)", flush=True)
        return printed


def quickstart(arguments: list[str]) -> int:
    """Run a parallel suite on leased accounts, and then on one hard-coded account."""
    QUICKSTART.set_up()
    foreign = ("BOTFARM_", "PYTEST_", "SHOP_URL")  # settings of other suites
    env = {
        name: value
        for name, value in QUICKSTART.variables().items()
        if not name.startswith(foreign)
    }
    folder = ROOT / "examples" / "quickstart"
    suite = [QUICKSTART.python, "-m", "pytest", "-n", "4"]

    print("\nEach test leases its account from Botfarm: pytest -n 4\n", flush=True)
    code = run(suite, env, folder)
    if code:
        return code

    print(
        "\nAll tests on one hard-coded account: pytest -n 4 --one-account\n", flush=True
    )
    code = run([*suite, "--one-account", "--tb=no", "-q"], env, folder)
    if code == 0:
        raise TaskError(
            "They passed, although they should have got in each other's way."
        )
    if code > 1:  # interrupted, for example
        return code
    print(
        "\nThe first run passed: Botfarm gave each account to one test at a time."
        "\nThe second failed: every login ended the session of another test."
        "\nThe suite is in examples/quickstart: copy it and make it yours."
    )
    return 0


def test(arguments: list[str]) -> int:
    """Run the whole test suite, on SQLite and on PostgreSQL. Arguments go to pytest."""
    set_up_tests()
    command = [DEVELOPMENT.python, "-m", "pytest", *(arguments or ["-n", "auto"])]
    return run(command, DEVELOPMENT.variables())


def versions(arguments: list[str]) -> int:
    """Run the wheel and a part of the tests on each supported Python that is found."""
    DEVELOPMENT.set_up()
    missing = []
    with tempfile.TemporaryDirectory() as folder:
        build = ("-m", "build", "--no-isolation", "--wheel", "--outdir", folder)
        Steps(DEVELOPMENT)("build", "python", *build)
        [wheel] = map(str, Path(folder).iterdir())
        for name in re.findall(r"Python :: (3\.\d+)", PROJECT.read_text("utf-8")):
            environment = _environment_of(name)
            if environment is None:
                missing.append(name)
                continue
            environment.set_up()
            environment.install_wheel(wheel)
            step = Steps(environment)
            # `python -m pytest` would take the packages from the checkout.
            suite = ("pytest", "-q", *EVERY_VERSION)
            printed = step(f"Python {name}", *suite, limit=SUITE_LIMIT)
            print(printed.strip().splitlines()[-1])
    if missing:
        print(f"NOT CHECKED: Python {', '.join(missing)}, which is not on this machine")
    return 0


def _environment_of(name: str) -> VersionEnvironment | None:
    """Of a Python by its name, if there is one on the path or in pyenv's folder."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    own = sorted(map(str, pyenv.glob(f"versions/{name}.*/bin/python")))
    # What pyenv has on the path fails for those that are not chosen in the folder.
    for base in (f"python{name}", *own):
        version = version_of(base)
        if version is not None and version.startswith(f"{name}."):
            return VersionEnvironment(name, base, version)
    return None


def check(arguments: list[str]) -> int:
    """Check format, lint, types, imports, deployment, the model and the built wheel."""
    DEVELOPMENT.set_up()
    step = Steps(DEVELOPMENT)
    step("format", "ruff", "format", "--check")
    step("lint", "ruff", "check")
    step("import contracts", "lint-imports")
    step("Dockerfile", "hadolint", "Dockerfile")
    compose = ("--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    step("docker-compose.yml", "check-jsonschema", *compose)
    step("k8s", "kubernetes-validate", "--strict", *found("k8s/*.yaml"))
    step("GitHub Actions", "zizmor", "--offline", "--persona", "pedantic", ".github")
    # Each of these keeps one core busy for a while.
    with ThreadPoolExecutor(max_workers=2) as pool:
        slow = (_check_wheel, _check_model, _check_types, _check_advisories)
        for checked in [pool.submit(one, step) for one in slow]:
            checked.result()
    return 0


def _check_types(step: Steps) -> None:
    step("types of the packages", "mypy")
    programs = ["tasks.py", "examples/quickstart/shop.py"]
    programs += [f"examples/playwright/{name}.py" for name in ("diary", "compare")]
    programs += [*found(".ci/*.py"), *found("benchmarks/*.py")]
    step("types of tests and programs", "mypy", "tests", *programs)


def _check_model(step: Steps) -> None:
    program = ".ci/check_model.py"
    step("model of the protocol", "python", program, limit=2 * STEP_LIMIT)


def _check_advisories(step: Steps) -> None:
    step("advisories about pinned versions", "python", ".ci/check_advisories.py")


def _check_wheel(step: Steps) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _build(step, folder)
        step("installed wheel", "python", ".ci/check_wheel.py", folder)


def _build(step: Steps, folder: str) -> None:
    step("build", "python", "-m", "build", "--no-isolation", "--outdir", folder)
    step("SBOM", "python", ".ci/components.py", "sbom", folder)


def build(arguments: list[str]) -> int:
    """Build the wheel, with its SBOM, and the sdist into dist/."""
    DEVELOPMENT.set_up()
    _build(Steps(DEVELOPMENT), str(ROOT / "dist"))
    return 0


def licences(arguments: list[str]) -> int:
    """Write docs/licences.md anew: the licences of all that an installation brings."""
    DEVELOPMENT.set_up()
    Steps(DEVELOPMENT)("licences", "python", ".ci/components.py", "licences")
    return 0


def ci(arguments: list[str]) -> int:
    """Run the quickstart, all checks, and the whole test suite."""
    QUICKSTART.set_up()
    Steps(QUICKSTART)(
        "quickstart", sys.executable, str(ROOT / "tasks.py"), "quickstart"
    )
    DEVELOPMENT.set_up()
    # An installation waits for the disk and the network as well.
    with ThreadPoolExecutor(max_workers=1) as pool:
        setting_up = pool.submit(set_up_tests)
        check([])
        setting_up.result()
    # They wait for databases, processes and times, too, some for long.
    workers = str((os.cpu_count() or 1) + 1)
    suite = (*SUITE, workers)
    printed = Steps(DEVELOPMENT)("tests", *suite, limit=SUITE_LIMIT)
    print(printed.strip().splitlines()[-1])
    return 0


def coverage(arguments: list[str]) -> int:
    """Measure which branches the tests reach, and fail where too few."""
    set_up_tests()
    step = Steps(DEVELOPMENT)
    others = [f"--ignore={path}" for path in UNMEASURED]
    suite = (*SUITE, "auto", *others, "-k", f"not {OVER_POSTGRESQL}")
    # What was stopped for its time may write to it still.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Suites and workers run in folders of their own, and write to this one.
        figures = {"COVERAGE_FILE": f"{folder}/coverage"}
        command = ("coverage", "run", "-m", *suite)
        step("tests, measured", *command, limit=SUITE_LIMIT, variables=figures)
        step("coverage, combined", "coverage", "combine", variables=figures)
        print(step("coverage", "coverage", "report", variables=figures))
    return 0


def benchmark(arguments: list[str]) -> int:
    """Run the programs of benchmarks/, or those that are named."""
    BENCHMARKS.set_up()
    for name in arguments or found("benchmarks/[!_]*.py"):
        program = f"benchmarks/{Path(name).stem}.py"
        # They start PostgreSQL as the tests do.
        variables = BENCHMARKS.variables({"PYTHONPATH": str(ROOT / "tests")})
        code = run([BENCHMARKS.python, program], variables)
        if code:
            return code
    return 0


def torture(arguments: list[str]) -> int:
    """Lease under faults and check what came of it. Arguments: see --help of it."""
    DEVELOPMENT.set_up()
    program = str(ROOT / "tests" / "torture" / "run.py")
    return run([DEVELOPMENT.python, program, *arguments], DEVELOPMENT.variables())


def fuzz(arguments: list[str]) -> int:
    """Try the OpenAPI document on a server. Arguments: --minutes, see --help of it."""
    for environment in (DEVELOPMENT, FUZZING):
        environment.set_up()
    program = str(ROOT / "tests" / "fuzz" / "run.py")
    variables = DEVELOPMENT.variables({"PYTHONPATH": str(ROOT / "tests")})
    return run([DEVELOPMENT.python, program, *arguments], variables)


def constraints(arguments: list[str]) -> int:
    """Write constraints.txt anew: the newest versions that pyproject.toml allows."""
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        run_quietly([sys.executable, "-m", "venv", folder])
        run_quietly([python, "-m", "pip", "install", "--quiet", "uv"])
        command = [python, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"]
        command += ["--universal", "--python-version", "3.10"]
        command += ["--extra", "server", "--group", "dev", "--group", "benchmarks"]
        command += ["--group", "model", "--group", "compatibility"]
        command += ["--group", "browsers", "--group", "fuzz"]
        pins = run_quietly([*command, "--no-header", "--no-emit-index-url"])
    heading = (
        "# The development environment on Python 3.10 to 3.13, every version pinned.\n"
        "# Written by: python3 tasks.py constraints\n"
    )
    CONSTRAINTS.write_text(heading + pins)
    return 0


def look_alikes(arguments: list[str]) -> int:
    """Write the table of characters that look like others anew, from Unicode's data."""
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        run_quietly([sys.executable, "-m", "venv", folder])
        data = "confusable-homoglyphs==3.3.1"  # of Unicode 15.1
        run_quietly([python, "-m", "pip", "install", "--quiet", data])
        run_quietly([python, ".ci/write_look_alikes.py"])
    return 0


def found(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


TASKS = {
    task.__name__: task
    for task in (
        *(quickstart, test, check, coverage, versions, ci, torture, fuzz, benchmark),
        *(build, constraints, licences, look_alikes),
    )
}


def main() -> int:
    name, *arguments = sys.argv[1:] or ["--help"]
    task = TASKS.get(name)
    if task is None or (arguments and task not in {test, torture, fuzz, benchmark}):
        print(f"{__doc__}\nUsage: python3 tasks.py TASK\n")
        for task_name, described in TASKS.items():
            print(f"  {task_name:<12} {described.__doc__}")
        return 0 if name in {"-h", "--help"} else 2
    # A task that is told to stop ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return task(arguments)
    except TaskError as error:
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
