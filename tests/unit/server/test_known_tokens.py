"""Tokens that were let in are known for a while, by their digests."""

from __future__ import annotations

from botfarm_server.domain.access import ANYBODY, BOOTSTRAP
from botfarm_server.services.known_tokens import MOST, KnownTokens


def test_a_token_is_known_from_when_it_is_let_in_until_it_is_refused() -> None:
    known = KnownTokens()
    assert known.caller_of("a") is None
    known.note("a", BOOTSTRAP)
    assert known.caller_of("a") == BOOTSTRAP
    known.forget("a")
    known.forget("never known")
    assert known.caller_of("a") is None


def test_what_a_server_without_tokens_lets_in_is_not_known() -> None:
    known = KnownTokens()
    known.note("made up", ANYBODY)
    assert known.caller_of("made up") is None


def test_of_too_many_the_one_is_forgotten_that_was_not_sent_for_the_longest() -> None:
    known = KnownTokens()
    for number in range(MOST):
        known.note(str(number), BOOTSTRAP)
    assert known.caller_of("0") == BOOTSTRAP
    known.note("one more", BOOTSTRAP)
    assert known.caller_of("0") == BOOTSTRAP
    assert known.caller_of("1") is None
