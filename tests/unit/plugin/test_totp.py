"""One-time codes, by the vectors of the RFC and as people write seeds."""

from __future__ import annotations

import base64
import time

import pytest
from support.accounts import account

from pytest_botfarm import SecretNotHeldError
from pytest_botfarm.totp import totp_of

SEED = "GEZDGNBVGY3TQOJQ"
SECONDS = 1_700_000_000
CODE = totp_of(SEED).at(SECONDS)


def uri(algorithm: str, length: int) -> str:
    key = base64.b32encode((b"1234567890" * 7)[:length]).decode()
    return f"otpauth://totp/A:b?secret={key}&algorithm={algorithm}&digits=8&period=30"


@pytest.mark.parametrize(
    ("seed", "seconds", "code"),
    [
        (uri("SHA1", 20), 59, "94287082"),
        (uri("SHA256", 32), 59, "46119246"),
        (uri("SHA512", 64), 59, "90693936"),
        (uri("SHA1", 20), 1_111_111_109, "07081804"),
        (uri("SHA256", 32), 20_000_000_000, "77737706"),
    ],
)
def test_codes_are_those_of_the_rfc(seed: str, seconds: int, code: str) -> None:
    assert totp_of(seed).at(seconds) == code


@pytest.mark.parametrize(
    "seed", [SEED.lower(), "GEZD GNBV GY3T QOJQ", f"otpauth://totp/x?secret={SEED}"]
)
def test_a_seed_may_be_written_as_people_are_shown_it(seed: str) -> None:
    assert totp_of(seed).at(SECONDS) == CODE
    assert SEED not in repr(totp_of(seed))


def test_an_account_gives_the_code_of_the_real_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alice = account(secrets={"totp": SEED, "app": f"otpauth://totp/x?secret={SEED}"})
    now = int(time.time())
    monkeypatch.setattr(time, "time", lambda: 0.0)
    codes = {totp_of(SEED).at(now + late) for late in (0, 30)}
    assert alice.totp() in codes
    assert alice.totp("app") in codes


@pytest.mark.parametrize(
    "seed",
    [
        "",
        "no seed!",
        f"otpauth://hotp/x?secret={SEED}&counter=1",
        "otpauth://totp/x",
        f"otpauth://totp/x?secret={SEED}&algorithm=MD5",
        f"otpauth://totp/x?secret={SEED}&digits=many",
        f"otpauth://totp/x?secret={SEED}&period=0",
    ],
)
def test_what_is_no_seed_is_an_error_that_does_not_repeat_it(seed: str) -> None:
    with pytest.raises(SecretNotHeldError, match="'totp' that is a base32") as caught:
        account(secrets={"totp": seed}).totp()
    assert not seed or seed not in str(caught.value)


def test_an_account_without_the_secret_says_where_to_write_it() -> None:
    with pytest.raises(SecretNotHeldError, match=r'secrets = \{ app = "…" \}'):
        account().totp("app")
