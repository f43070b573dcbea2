"""What a client takes from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def token_of(environ: Mapping[str, str]) -> str | None:
    """The server's token. Never from the command line, which all users can see.

    Raises:
        ValueError: it cannot be read, or cannot be a token.

    """
    token = environ.get("BOTFARM_TOKEN", "")
    source = "BOTFARM_TOKEN"
    if not token and (file := environ.get("BOTFARM_TOKEN_FILE")):
        source = f"BOTFARM_TOKEN_FILE ({file})"
        try:
            token = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{source} cannot be read: {error}"
            raise ValueError(msg) from None
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        msg = f"{source} must be printable ASCII on one line"
        raise ValueError(msg)
    return token or None
