"""How a token is written, so that scanners know it and a slip of the hand is seen.

`bf_<role>_` leads 30 random characters of base 62, and a checksum of 6 ends it: the
CRC-32 of all before, in base 62. The role in it is for people; what counts is stored.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

from botfarm_server.domain.models import Role

PREFIX = "bf_"
RANDOM_LENGTH = 30
"""Characters: 178 random bits."""
CHECKSUM_LENGTH = 6
"""Characters that 32 bits take at most."""

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORM = re.compile(
    rf"{PREFIX}(read|lease|admin)_[0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH}}}"
)


def new_token(role: Role) -> str:
    """A token that nobody has."""
    drawn = "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_LENGTH))
    unchecked = f"{PREFIX}{role}_{drawn}"
    return unchecked + _checksum(unchecked)


def is_mistyped(given: str) -> bool:
    """Whether it begins as a token does, and cannot be one."""
    if not given.startswith(PREFIX):
        return False
    unchecked, checksum = given[:-CHECKSUM_LENGTH], given[-CHECKSUM_LENGTH:]
    return not (_FORM.fullmatch(given) and _checksum(unchecked) == checksum)


def digest_of(token: str) -> str:
    """What is stored of it. A slow hash would add nothing: there is no guessing it."""
    return hashlib.sha256(token.encode()).hexdigest()


def _checksum(unchecked: str) -> str:
    number = zlib.crc32(unchecked.encode())
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
