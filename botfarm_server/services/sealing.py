"""Secrets at rest: sealed with AES-GCM, bound to the user that they belong to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from botfarm_server.domain.errors import SecretUnreadableError
from botfarm_server.domain.models import UserId

FORMAT = b"\x01"
KEY_NAME_BYTES = 4
MARK_BYTES = len(FORMAT) + KEY_NAME_BYTES
NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class _Key:
    mark: bytes
    """How all that it has sealed begins."""
    cipher: AESGCM


class Sealer:
    """Seals with the newest key and opens with any.

    A sealed value is: format (1 byte), name of the key (4), nonce (12), ciphertext
    with tag. The user's id and the field's name are authenticated with it, so that a
    value copied to another user or field does not open. The first two are its mark.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = [
            _Key(FORMAT + hashlib.sha256(key).digest()[:KEY_NAME_BYTES], AESGCM(key))
            for key in keys
        ]

    @property
    def can_seal(self) -> bool:
        return bool(self._keys)

    @property
    def marks(self) -> Sequence[bytes]:
        """Those of the keys, that of the newest first."""
        return [key.mark for key in self._keys]

    def seal(self, user_id: UserId, field: str, text: str) -> bytes | None:
        """The sealed text, or `None` without a key: then it is not kept at all."""
        if not self._keys:
            return None
        newest = self._keys[0]
        nonce = os.urandom(NONCE_BYTES)
        sealed = newest.cipher.encrypt(nonce, text.encode(), _bound_to(user_id, field))
        return newest.mark + nonce + sealed

    def open(self, user_id: UserId, field: str, sealed: bytes) -> str:
        """The text that was sealed.

        Raises:
            SecretUnreadableError: no key opens it, or it is another user's or field's.

        """
        mark, rest = sealed[:MARK_BYTES], sealed[MARK_BYTES:]
        nonce, body = rest[:NONCE_BYTES], rest[NONCE_BYTES:]
        alike = [key for key in self._keys if key.mark == mark]
        for key in alike:
            try:
                opened = key.cipher.decrypt(nonce, body, _bound_to(user_id, field))
            except (InvalidTag, ValueError):  # the latter of one that was cut off
                continue
            return opened.decode()
        raise SecretUnreadableError(user_id, name_of(mark), has_key=bool(alike))

    def seal_map(
        self, user_id: UserId, field: str, texts: Mapping[str, str]
    ) -> bytes | None:
        return self.seal(user_id, field, json.dumps(dict(texts))) if texts else None

    def open_map(
        self, user_id: UserId, field: str, sealed: bytes | None
    ) -> dict[str, str]:
        if sealed is None:
            return {}
        return cast("dict[str, str]", json.loads(self.open(user_id, field, sealed)))


def name_of(mark: bytes) -> str:
    """The name of a key as people are told it: the first digits of its SHA-256."""
    return mark[len(FORMAT) :].hex()


def _bound_to(user_id: UserId, field: str) -> bytes:
    return user_id.bytes + field.encode()
