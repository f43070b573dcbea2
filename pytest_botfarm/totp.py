"""One-time codes of accounts with a second factor, as RFC 6238 has them.

pyotp would do, but refuses the seeds of 80 bits that most systems still give out.
"""

from __future__ import annotations

import base64
import ctypes
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

PREFIX = "otpauth://totp/"
"""Of the URI that a QR code stands for, where codes depend on the time."""
UNLESS_GIVEN = {"algorithm": "SHA1", "digits": "6", "period": "30"}
ALGORITHMS = frozenset({"SHA1", "SHA256", "SHA512"})

# Tools that freeze time for a test change even the C functions of Python's `time`: the
# C library is asked by itself.
_seconds_since_1970 = ctypes.CDLL(None).time
_seconds_since_1970.restype = ctypes.c_long
_seconds_since_1970.argtypes = (ctypes.c_void_p,)


@dataclass(frozen=True, slots=True)
class Totp:
    """A key, and what its codes are made by."""

    key: bytes = field(repr=False, compare=False)
    algorithm: str
    digits: int
    period: int
    """Seconds that a code is good for."""

    def at(self, seconds: int) -> str:
        """The code at a time, in seconds since 1970."""
        counter = (seconds // self.period).to_bytes(8, "big")
        digest = hmac.digest(self.key, counter, self.algorithm)
        start = digest[-1] & 0xF
        number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFF_FFFF
        return str(number % 10**self.digits).zfill(self.digits)


def code_of(seed: str) -> str:
    """The code that is good now. Raises ValueError as `totp_of` does."""
    __tracebackhide__ = True
    return totp_of(seed).at(_seconds_since_1970(None))


def totp_of(seed: str) -> Totp:
    """What makes the codes of a base32 seed, or of an `otpauth://totp/` URI.

    Raises:
        ValueError: it is neither.

    """
    __tracebackhide__ = True
    given: Mapping[str, str] = {"secret": seed}
    if seed.startswith(PREFIX):
        given = dict(parse_qsl(urlsplit(seed).query))
    given = {**UNLESS_GIVEN, **given}
    totp = Totp(
        _key_of(given.get("secret", "")),
        given["algorithm"].upper(),
        int(given["digits"]),
        int(given["period"]),
    )
    if (
        not totp.key
        or totp.algorithm not in ALGORITHMS
        or not 6 <= totp.digits <= 8
        or totp.period < 1
    ):
        msg = "no code can be made by it"
        raise ValueError(msg)
    return totp


def _key_of(base32: str) -> bytes:
    __tracebackhide__ = True
    # As people are shown it: in groups, and without its padding.
    letters = base32.replace(" ", "").replace("-", "").rstrip("=")
    return base64.b32decode(letters + "=" * (-len(letters) % 8), casefold=True)
