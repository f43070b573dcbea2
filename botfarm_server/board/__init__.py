"""The live page: what goes on in a farm, for people, in one file without any other."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def page() -> str:
    """The page, which asks the API for what it shows, with a token of who looks."""
    return Path(__file__).with_name("page.html").read_text(encoding="utf-8")
