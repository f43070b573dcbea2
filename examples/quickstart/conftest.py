"""Starts the shop once for the whole run, and signs users in to it."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser import Browser

pytest_plugins = ["one_account"]  # adds --one-account: the same suite without Botfarm


def pytest_configure(config):
    """Start the shop, unless one runs already: for an xdist worker it always does."""
    if "SHOP_URL" in os.environ:
        return
    shop = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("shop.py")],
        stdin=subprocess.PIPE,  # the shop closes when this does
        stdout=subprocess.PIPE,
        start_new_session=True,  # and not at Ctrl-C, which pytest handles
        text=True,
    )
    config.add_cleanup(shop.communicate)
    url = shop.stdout.readline().strip()
    if not url:
        pytest.exit("The shop did not start.", returncode=3)
    os.environ["SHOP_URL"] = url  # inherited by the xdist workers
    config.add_cleanup(lambda: os.environ.pop("SHOP_URL"))


@pytest.fixture
def log_in():
    """Sign a user in, in a new browser."""
    with ExitStack() as browsers:

        def open_browser(user):
            browser = Browser(os.environ["SHOP_URL"])
            browsers.callback(browser.close)
            browser.submit("/login", login=user.login, password=user.password)
            return browser

        yield open_browser
