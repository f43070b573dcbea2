"""Leases outlive their TTL as long as their test, and a lost one is not hidden."""

from __future__ import annotations

from support.farm import Farm
from support.suites import Suite

LEASE = """
    import time

    import httpx
    import pytest

    def server():
        return httpx.Client(
            base_url="{url}", headers={{"Authorization": "Bearer {token}"}}
        )

    def mine(http, test_id):
        return next(
            lease
            for lease in http.get("/api/v1/leases").json()
            if lease["holder"]["test_id"] == test_id
            and lease["holder"]["worker_id"] != "thief"
        )
    """


def test_a_lease_lives_longer_than_its_ttl_through_test_and_teardown(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        LEASE.format(url=farm.url, token=farm.token)
        + """
    def outlive(seconds):
        with server() as http:
            while (lease := mine(http, "test_suite.py::test_it"))["held_for"] < seconds:
                assert lease["expires_in"] > 0
                time.sleep(0.1)

    @pytest.fixture
    def slow_teardown(bot_user):
        bot_user()
        yield
        outlive(9.5)

    def test_it(slow_teardown):
        outlive(5.5)
    """
    )
    suite.run("--botfarm-ttl", "5").assert_outcomes(passed=1)
    assert farm.outcomes(pool) == ["passed"]


def test_a_lost_lease_makes_the_test_an_error_that_says_who_has_the_account(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """An admin takes its holder for dead, and another one has the account at once."""
    suite.write(
        LEASE.format(url=farm.url, token=farm.token)
        + f"""
    import uuid

    def test_it(bot_user):
        user = bot_user()
        other = bot_user()
        with server() as http:
            lease = mine(http, "test_suite.py::test_it")
            http.post(
                f"/api/v1/leases/{{lease['id']}}/break",
                json={{"reason": "for a demo", "holder_is_dead": True}},
            ).raise_for_status()
            taken = http.put(
                f"/api/v1/leases/{{uuid.uuid4()}}",
                json={{
                    "wants": [{{"env": "stage", "domain": "{pool}"}}],
                    "holder": {{"test_id": "test_thief.py", "worker_id": "thief"}},
                    "wait": 30,
                    "ttl": 60,
                }},
                timeout=40,
            )
            assert taken.status_code == 200
    """
    )
    result = suite.run()
    result.assert_outcomes(passed=1, errors=1)
    text = result.stdout.str()
    assert "ERROR at teardown of test_it" in text
    assert "for a demo" in text
    assert "is now held by test_thief.py (worker thief)" in text
    assert "It is a fault of the infrastructure" in text
    result.stdout.re_match_lines(
        [
            r"2 leases, .*, 1 lost",
            rf"lost in test_suite.py::test_it: The lease of \w+@{pool} was lost",
        ]
    )


def test_the_heartbeat_notices_a_loss_and_the_lease_is_not_taken_again(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        LEASE.format(url=farm.url, token=farm.token)
        + """
    import logging

    def test_it(bot_user):
        bot_user()
        with server() as http:
            lease = mine(http, "test_suite.py::test_it")
            http.post(f"/api/v1/leases/{lease['id']}/break", json={"reason": "x"})
            ends = time.monotonic() + 4  # twice as long as until the next beat
            while time.monotonic() < ends:
                time.sleep(0.1)
            shown = http.get(f"/api/v1/leases/{lease['id']}").json()
            assert shown["state"] == "revoked"
    """
    )
    result = suite.run("--botfarm-ttl", "5")
    result.assert_outcomes(passed=1, errors=1)
    assert "held by nobody" in result.stdout.str()


def test_a_server_that_comes_back_in_time_loses_no_lease(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """Heartbeats go through a relay that the test cuts for longer than one beat."""
    suite.write(
        LEASE.format(url=farm.url, token=farm.token)
        + f"""
    import select
    import socket
    import threading
    from urllib.parse import urlsplit

    class Relay(threading.Thread):
        def __init__(self):
            super().__init__(daemon=True)
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.cut = False
            self.refused = 0

        def run(self):
            while True:
                client, _ = self.listener.accept()
                if self.cut:
                    self.refused += 1
                    client.close()
                    continue
                parts = urlsplit("{farm.url}")
                server = socket.create_connection((parts.hostname, parts.port))
                threading.Thread(
                    target=self.carry, args=(client, server), daemon=True
                ).start()

        def carry(self, client, server):
            other = {{client: server, server: client}}
            with client, server:
                while not self.cut:
                    for ready in select.select([client, server], [], [], 0.05)[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        other[ready].sendall(data)

    relay = Relay()
    relay.start()

    def pytest_configure(config):
        config.option.botfarm_url = "http://127.0.0.1:%d" % (
            relay.listener.getsockname()[1]
        )
    """,
        "conftest",
    )
    suite.write(
        """
        import time

        import conftest

        def test_it(bot_user):
            bot_user()
            conftest.relay.cut = True
            while conftest.relay.refused < 2:
                time.sleep(0.05)
            conftest.relay.cut = False
            with conftest.server() as http:
                first = conftest.mine(http, "test_suite.py::test_it")["expires_in"]
                while conftest.mine(http, "test_suite.py::test_it")[
                    "expires_in"
                ] <= first:
                    time.sleep(0.05)
        """
    )
    suite.run("--botfarm-ttl", "8").assert_outcomes(passed=1)
    assert farm.outcomes(pool) == ["passed"]


def test_short_tests_start_no_heartbeat(suite: Suite, farm: Farm, pool: str) -> None:
    """One thread parks for all of them, and no second connection is opened."""
    suite.write(
        """
        import threading

        import pytest

        threads = set()

        @pytest.mark.parametrize("number", range(5))
        def test_it(bot_user, number):
            bot_user()
            threads.update(threading.enumerate())
            names = [thread.name for thread in threads]
            assert names.count("botfarm-heartbeat") == 1
        """
    )
    suite.run().assert_outcomes(passed=5)
