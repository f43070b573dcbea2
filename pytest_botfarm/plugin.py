"""Where pytest meets Botfarm: the hooks, and nothing but the hooks.

Imports nothing that costs time: most runs that load the plugin lease nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from . import hookspecs
from .fixtures import (
    FAULT,
    FIGURES,
    FIXTURES,
    MARK,
    MARK_SIGNATURE,
    SESSION,
    bot_user,
    class_bot_user,
    module_bot_user,
    package_bot_user,
    put_marks_first,
    session_bot_user,
)
from .options import add_options, is_configured, is_told

if TYPE_CHECKING:
    from .report import Summary
    from .xdist import Controller, WorkerNode  # noqa: F401  # one is named in a string

__all__ = [
    "bot_user",
    "class_bot_user",
    "module_bot_user",
    "package_bot_user",
    "session_bot_user",
]

SUMMARY = pytest.StashKey["Summary"]()
CONTROLLER = pytest.StashKey["Controller"]()
CAP = pytest.StashKey[str]()
"""What the header says of the number of workers."""
PROCESS = pytest.StashKey[tuple[int, int]]()
"""This process and the one that started it: the controller, for a worker."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARK_SIGNATURE}: lease test accounts before the test starts"
    )
    config.stash[PROCESS] = os.getpid(), os.getppid()
    if not hasattr(config, "workerinput"):
        _configure_run(config)


def _configure_run(config: pytest.Config) -> None:
    """What is not for workers, of which pytest-xdist would tell a wrong setting as "no
    tests ran".
    """
    config.pluginmanager.register(Reports(config), "botfarm-reports")
    if is_told(config):
        from .settings import check_settings  # noqa: PLC0415  # only where there are any

        report = check_settings(config).report
        if report is not None:
            from .timeline import Timeline  # noqa: PLC0415  # where it is asked for

            timeline = Timeline(config, summary_of(config), report)
            config.pluginmanager.register(timeline, "botfarm-timeline")
    spread = config.getoption("dist", "no") != "no"  # pytest-xdist's, where it is
    if spread and is_configured(config):
        # Only where tests are spread, and there is somewhere to lease from.
        from .xdist import Controller  # noqa: PLC0415

        controller = config.stash[CONTROLLER] = Controller(config)
        config.pluginmanager.register(controller, "botfarm-xdist-controller")


class Reports:
    """Hears of leases from the tests of all processes."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    # Before others print the report, or write it to a file.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, FIGURES) or hasattr(report, FAULT):
            summary_of(self._config).add(report)


def summary_of(config: pytest.Config) -> Summary:
    """What adds up the reports, made and loaded with the first that tells anything."""
    if SUMMARY not in config.stash:
        from .report import Summary  # noqa: PLC0415  # only where there are leases

        config.stash[SUMMARY] = Summary()
    return config.stash[SUMMARY]


def pytest_sessionstart(session: pytest.Session) -> None:
    if "BOTFARM_TOKEN" in os.environ or "BOTFARM_TOKEN_FILE" in os.environ:
        # Before the first lease, too, a test can fail with its environment in sight.
        from .scrubbing import learn_token  # noqa: PLC0415  # only where there is one

        learn_token(session.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    marked = [
        node
        for node in report.result or ()
        if isinstance(node, pytest.Item) and node.get_closest_marker(MARK)
    ]
    if marked:
        from .wants import problems_of_marks  # noqa: PLC0415  # only where there is one

        if problems := problems_of_marks(marked):
            report.outcome = "failed"
            report.longrepr = "\n".join(problems)
            report.result = []
    return report


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(
    config: pytest.Config,
) -> Generator[None, int, int]:
    workers = yield
    if not (is_told(config, "cap-workers") and is_configured(config)):
        return workers
    from .capping import capped  # noqa: PLC0415  # only where it is wanted

    workers, told = capped(config, workers)
    if told is not None:
        config.stash[CAP] = told
    return workers


# First: a worker of pytest-xdist tells here that it has collected.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("collectonly"):
        return
    # Not before: hooks may have added marks until now.
    for item in session.items:
        put_marks_first(item)
    if any(
        not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        for item in session.items
    ) or (
        # A test may ask for the fixture while it runs: getfixturevalue, pytest-bdd.
        "httpx" in sys.modules and is_configured(session.config)
    ):
        # Before a test can put doubles in the place of what the client is made of.
        from . import heartbeat, preparing, xdist  # noqa: F401, PLC0415
        from .foresight import foresee  # noqa: PLC0415  # only where tests lease

        foresee(session)


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    from .limits import LIMIT, Limit  # noqa: PLC0415  # only beside pytest-timeout

    item.config.stash[LIMIT] = Limit(settings.timeout)


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    from .limits import LIMIT  # noqa: PLC0415  # the same

    if LIMIT in item.config.stash:
        del item.config.stash[LIMIT]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    session = item.config.stash.get(SESSION, None)
    if session is not None:
        from .report import add_fault, add_to_report  # noqa: PLC0415  # as above

        add_to_report(item, report)
        if call.excinfo is not None and report.failed:
            add_fault(report, session.faults, call.excinfo.value)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerNode, error: object | None) -> None:
    if error and SUMMARY in node.config.stash:
        node.config.stash[SUMMARY].note_crash(node.workerinput["workerid"])


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not is_configured(config):
        return []
    from .report import header  # noqa: PLC0415  # only where accounts come from somewhere

    return [header(config), *([config.stash[CAP]] if CAP in config.stash else [])]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    session = config.stash.get(SESSION, None)
    notes = session.closing_notes() if session else []
    if notes or SUMMARY in config.stash:
        summary_of(config).write(terminalreporter, notes)


def pytest_sessionfinish(session: pytest.Session) -> None:
    leases = session.config.stash.get(SESSION, None)
    if leases is not None:
        leases.give_back_idle()
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["botfarm_unsettled"] = leases is not None and leases.is_unsettled
        output["botfarm_reached"] = leases is not None and leases.was_reached
        # Not when it is unconfigured, which a worker without its controller never is.
        process, parent = session.config.stash[PROCESS]
        if os.getpid() == process and os.getppid() != parent:
            from .xdist import clear_up_behind  # noqa: PLC0415  # behind a dead one

            clear_up_behind(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.stash.get(SESSION, None)
    controller = config.stash.get(CONTROLLER, None)
    if session is None:
        return
    try:
        if hasattr(config, "workerinput"):
            session.close()  # what it left held is the controller's business
        else:
            session.finish(
                unsettled=controller is not None and controller.is_unsettled,
                workers_reached=controller is not None and controller.workers_reached,
            )
    finally:
        if controller is not None:
            controller.close()
