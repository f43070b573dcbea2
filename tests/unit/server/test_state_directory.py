"""Where an embedded server keeps its files: nowhere that others can write to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from botfarm_server.embedded import state_directory
from botfarm_server.settings import SettingsError

POOL = Path("botfarm.toml")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "state"
    base.mkdir(mode=0o755)
    monkeypatch.setenv("BOTFARM_STATE_DIR", str(base))
    return base


def test_it_is_closed_to_others_also_where_it_was_not(base: Path) -> None:
    directory = state_directory(POOL)
    directory.chmod(0o755)
    assert state_directory(POOL) == directory
    assert directory.stat().st_mode & 0o777 == 0o700


def test_what_others_may_write_to_is_refused(base: Path) -> None:
    directory = state_directory(POOL)
    for path in (base, directory):
        path.chmod(0o770)
        with pytest.raises(SettingsError, match=f"chmod go-w {path}"):
            state_directory(POOL)
        path.chmod(0o700)
    base.chmod(0o1777)  # as /tmp
    assert state_directory(POOL) == directory


def test_what_is_anothers_is_refused(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = state_directory(POOL)
    elsewhere = directory.rename(base / "elsewhere")
    directory.symlink_to(elsewhere)
    with pytest.raises(SettingsError, match="not a directory of your own"):
        state_directory(POOL)
    directory.unlink()
    elsewhere.rename(directory)
    someone = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: someone)
    with pytest.raises(SettingsError, match="not a directory of your own"):
        state_directory(POOL)
