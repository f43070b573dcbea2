"""Keeps secrets out of what pytest shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

MASK = "***"


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text with a mask in the place of each secret."""
    # The longest first: a shorter one may be part of it.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


class Secrets(Mapping[str, str]):
    """Named secrets, which can be read one by one, but are never shown.

    Equality is that of identity: pytest would show the values of two mappings that
    differ.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        named = ", ".join(f"{name}={MASK}" for name in self._values)
        return f"Secrets({named})"

    __eq__ = object.__eq__
    __hash__ = object.__hash__
