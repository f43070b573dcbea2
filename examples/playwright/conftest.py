"""Starts the diary once for the whole run, and gives each test a page signed in."""

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright


def pytest_addoption(parser):
    parser.addoption(
        "--login-each-time", action="store_true", help="sign in anew in every test"
    )


def pytest_configure(config):
    """Start the diary, unless one runs already: for an xdist worker it always does."""
    if "DIARY_URL" in os.environ:
        return
    diary = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("diary.py")],
        stdin=subprocess.PIPE,  # the diary closes when this does
        stdout=subprocess.PIPE,
        start_new_session=True,  # and not at Ctrl-C, which pytest handles
        text=True,
    )
    config.add_cleanup(diary.communicate)
    os.environ["DIARY_URL"] = diary.stdout.readline().strip()
    config.add_cleanup(lambda: os.environ.pop("DIARY_URL"))


def pytest_terminal_summary(terminalreporter):
    with urllib.request.urlopen(os.environ["DIARY_URL"] + "/logins") as page:
        logins = page.read().decode().rpartition(">")[2]
    terminalreporter.write_line(f"logins: {logins}")


@pytest.fixture(scope="session")
def chromium():
    """Chromium of this machine, or else the one that Playwright has installed."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    # As root, in a container say, Chromium starts without its sandbox alone.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """A new page, in a context of its own that knows what `state` tells."""
    contexts = []

    def open_(state=None):
        url = os.environ["DIARY_URL"]
        contexts.append(chromium.new_context(base_url=url, storage_state=state))
        return contexts[-1].new_page()

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture
def sign_in(open_page):
    def sign_in_(user):
        page = open_page()
        page.goto("/login")
        page.get_by_label("Login").fill(user.login)
        page.get_by_label("Password").fill(user.password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("/")
        return page.context.storage_state()

    return sign_in_


@pytest.fixture
def user(bot_user):
    return bot_user("stage", "regular")


@pytest.fixture
def open_diary(open_page):
    def open_(state):
        page = open_page(state)
        page.request.post("/clear")  # what earlier tests have written
        page.goto("/")
        return page

    return open_


@pytest.fixture
def page(user, open_diary, sign_in, pytestconfig):
    """The diary's page, signed in and empty."""
    if pytestconfig.getoption("--login-each-time"):
        return open_diary(sign_in(user))
    page = open_diary(user.login_once(sign_in))
    if page.url.endswith("/login"):  # the session has ended since it was saved
        user.drop_state()
        page = open_diary(user.login_once(sign_in))
    return page
