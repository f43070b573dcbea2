"""Secrets at rest."""

from __future__ import annotations

import uuid

import pytest

from botfarm_server.domain.errors import SecretUnreadableError
from botfarm_server.domain.models import UserId
from botfarm_server.services.sealing import Sealer

ALICE, BOB = UserId(uuid.UUID(int=1)), UserId(uuid.UUID(int=2))
OLD, NEW = b"o" * 32, b"n" * 32


def sealed_by(*keys: bytes) -> bytes:
    sealed = Sealer(keys).seal(ALICE, "password", "secret")
    assert sealed is not None
    assert b"secret" not in sealed
    return sealed


def test_the_first_key_seals_and_every_key_opens() -> None:
    assert Sealer([NEW, OLD]).open(ALICE, "password", sealed_by(OLD)) == "secret"
    assert Sealer([NEW]).open(ALICE, "password", sealed_by(NEW, OLD)) == "secret"


@pytest.mark.parametrize(("user_id", "field"), [(BOB, "password"), (ALICE, "secrets")])
def test_a_value_copied_to_another_user_or_field_does_not_open(
    user_id: UserId, field: str
) -> None:
    with pytest.raises(SecretUnreadableError):
        Sealer([NEW]).open(user_id, field, sealed_by(NEW))


@pytest.mark.parametrize(
    "sealed",
    [b"", b"\x02", sealed_by(OLD), b"\x01" + b"0" * 40, sealed_by(NEW)[:9]],
    ids=["nothing", "another format", "another key", "no key", "cut off"],
)
def test_what_no_key_opens_is_an_error(sealed: bytes) -> None:
    with pytest.raises(SecretUnreadableError):
        Sealer([NEW]).open(ALICE, "password", sealed)


def test_a_changed_byte_is_seen() -> None:
    sealed = bytearray(sealed_by(NEW))
    sealed[-1] ^= 1
    with pytest.raises(SecretUnreadableError):
        Sealer([NEW]).open(ALICE, "password", bytes(sealed))


def test_without_a_key_nothing_is_kept() -> None:
    assert Sealer([]).seal(ALICE, "password", "secret") is None


def test_a_map_of_secrets_comes_back() -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal_map(ALICE, "secrets", {"totp": "seed"})
    assert sealer.open_map(ALICE, "secrets", sealed) == {"totp": "seed"}
    assert sealer.seal_map(ALICE, "secrets", {}) is None
    assert sealer.open_map(ALICE, "secrets", None) == {}
