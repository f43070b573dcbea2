"""Wrong tokens are counted by who sends them, for a while, in bounded memory."""

from __future__ import annotations

import pytest

from botfarm_server.domain.errors import TooManyWrongTokensError, UnauthorizedError
from botfarm_server.services.guessing import (
    LOOPBACK,
    MOST,
    MOST_ADDRESSES,
    WINDOW,
    WrongTokens,
    source_of,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def is_refused(wrong: WrongTokens, address: str) -> bool:
    try:
        wrong.note(address, UnauthorizedError())
    except TooManyWrongTokensError:
        return True
    return False


def test_an_address_begins_anew_after_a_while_and_is_told_when() -> None:
    clock = Clock()
    wrong = WrongTokens(clock)
    assert not any(is_refused(wrong, "192.0.2.1") for _ in range(MOST))
    clock.now = WINDOW - 10.5
    with pytest.raises(TooManyWrongTokensError) as refused:
        wrong.note("192.0.2.1", UnauthorizedError())
    assert refused.value.retry_after == 11
    clock.now = WINDOW
    assert not is_refused(wrong, "192.0.2.1")


def test_neighbours_count_apart_and_a_network_of_ipv6_as_one() -> None:
    wrong = WrongTokens(Clock())
    for number in range(MOST):
        assert not is_refused(wrong, "192.0.2.1")
        assert not is_refused(wrong, f"2001:db8::{number:x}")
    assert not is_refused(wrong, "192.0.2.2")
    assert not is_refused(wrong, "2001:db8:0:1::1")
    assert is_refused(wrong, "192.0.2.1")
    assert is_refused(wrong, "2001:db8::ffff")


def test_a_flood_of_addresses_forgets_the_oldest() -> None:
    wrong = WrongTokens(Clock())
    for number in range(MOST_ADDRESSES + 1):
        wrong.note(f"address {number}", UnauthorizedError())
    assert len(wrong._windows) == MOST_ADDRESSES
    assert "address 0" not in wrong._windows


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.9.9.9"]
)
def test_all_addresses_of_this_machine_are_one_source(address: str) -> None:
    """Or a shell on it would have a lane, and a part of all else, for each of them."""
    assert source_of(address) == LOOPBACK


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::7", "2001:db8::/64"),
        ("", ""),
        ("name.test", "name.test"),
    ],
)
def test_others_are_known_by_their_address_or_network(
    address: str, source: str
) -> None:
    assert source_of(address) == source
