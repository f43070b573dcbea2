"""How tokens are written."""

from __future__ import annotations

import math
import re
from typing import get_args

import pytest

from botfarm_server.domain.models import Role
from botfarm_server.domain.tokens import RANDOM_LENGTH, is_mistyped, new_token


@pytest.mark.parametrize("role", get_args(Role))
def test_a_token_has_160_random_bits_and_a_form_that_scanners_know(role: Role) -> None:
    assert RANDOM_LENGTH * math.log2(62) >= 160
    tokens = {new_token(role) for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(rf"bf_{role}_[0-9A-Za-z]{{36}}", it) for it in tokens)
    assert not any(map(is_mistyped, tokens))


def test_each_character_counts_and_other_tokens_are_not_judged() -> None:
    token = new_token("lease")
    for place in range(3, len(token)):
        other = "x" if token[place] != "x" else "y"
        assert is_mistyped(token[:place] + other + token[place + 1 :])
    assert is_mistyped(token + "0")
    assert not is_mistyped("a-bootstrap-token-of-somebody")
