"""Tools that patch the test process reach neither the plugin nor its requests."""

from __future__ import annotations

import pytest
from support.beside import Beside
from support.farm import write_pool


def test_mocks_of_http_see_nothing_of_the_plugin(suite: Beside) -> None:
    suite.write(
        """
        import os

        import httpx
        import pytest
        import requests
        import responses
        import respx
        import vcr

        SHOP = "http://shop.example/"
        OUR_SERVER = os.environ["BOTFARM_URL"] + "/health"

        def test_respx(bot_user, respx_mock):
            respx_mock.get(SHOP).respond(204)
            assert bot_user().password
            assert httpx.get(SHOP).status_code == 204
            assert bot_user().password
            assert respx_mock.calls.call_count == 1

        @respx.mock(base_url=SHOP)
        def test_respx_and_a_fixture_by_name(request, respx_mock):
            assert request.getfixturevalue("bot_user")().password

        def test_pytest_httpx(bot_user, httpx_mock):
            httpx_mock.add_response(status_code=204)
            assert bot_user().password
            assert httpx.get(SHOP).status_code == 204
            assert bot_user().password
            assert len(httpx_mock.get_requests()) == 1

        @responses.activate
        def test_responses(bot_user):
            responses.get(SHOP, status=204)
            assert bot_user().password
            assert requests.get(SHOP).status_code == 204
            assert len(responses.calls) == 1

        def test_vcrpy(bot_user, tmp_path):
            with vcr.use_cassette(str(tmp_path / "tape.yaml")) as tape:
                assert bot_user().password
                httpx.get(OUR_SERVER), requests.get(OUR_SERVER)
            assert [told.uri for told in tape.requests] == [OUR_SERVER] * 2

        @pytest.mark.vcr
        def test_pytest_recording(bot_user, vcr):
            assert bot_user().password
            requests.get(OUR_SERVER)
            assert [told.uri for told in vcr.requests] == [OUR_SERVER]
        """
    )
    plugins = ("-p", "respx", "-p", "pytest_httpx", "-p", "recording")
    suite.run(*plugins, "--record-mode=once").assert_outcomes(passed=6)
    assert suite.outcomes() == ["passed"] * 8


def test_guards_of_the_network_let_the_plugin_through(suite: Beside) -> None:
    suite.write(
        """
        import os

        import pytest
        from urllib.request import urlopen

        def is_cut_off():
            with pytest.raises(RuntimeError):
                urlopen(os.environ["BOTFARM_URL"] + "/health")
            return True

        @pytest.mark.disable_socket
        def test_by_name_while_it_runs(request):  # the first to load the client
            assert is_cut_off()
            assert request.getfixturevalue("bot_user")().password

        @pytest.mark.allow_hosts("192.0.2.1")
        def test_no_host_but_one(bot_user):
            assert is_cut_off()
            assert bot_user().password

        @pytest.mark.block_network
        def test_pytest_recording(bot_user):
            assert is_cut_off()
            assert bot_user().password
        """
    )
    suite.run("-p", "socket", "-p", "recording").assert_outcomes(passed=3)
    assert suite.outcomes() == ["passed"] * 3


def test_a_worker_without_sockets_finds_the_embedded_server(
    suite: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = suite.pytester.path
    write_pool(folder / "botfarm.toml", "alice@example.com")
    monkeypatch.delenv("BOTFARM_URL")
    monkeypatch.setenv("BOTFARM_STATE_DIR", str(folder / "state"))
    suite.write(
        """
        import socket

        import pytest

        def test_it(bot_user):
            with pytest.raises(RuntimeError):
                socket.socket(socket.AF_UNIX)
            assert bot_user("stage", "regular").password
        """
    )
    arguments = ("-p", "xdist", "-n1", "-p", "socket", "--disable-socket")
    suite.run(*arguments).assert_outcomes(passed=1)


def test_neither_a_frozen_clock_nor_a_cut_network_stops_the_heartbeat(
    suite: Beside,
) -> None:
    """The leases are held for longer than their TTL."""
    suite.write(
        """
        import time
        from functools import partial

        import freezegun
        import pytest
        import time_machine

        pytestmark = pytest.mark.disable_socket
        sleep = partial(time.sleep)

        def test_freezegun(bot_user):
            with freezegun.freeze_time("2020-02-29"):
                bot_user()
                sleep(6)

        def test_time_machine(bot_user):
            with time_machine.travel("2040-02-29", tick=False):
                bot_user()
                sleep(6)
        """
    )
    plugins = ("-p", "xdist", "-p", "socket", "-p", "time_machine")
    suite.run(*plugins, "-n2", "--botfarm-ttl=5").assert_outcomes(passed=2)
    assert suite.outcomes() == ["passed"] * 2
