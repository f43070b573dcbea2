"""What a person should know of the way to the server."""

from __future__ import annotations

import pytest

from pytest_botfarm import AsyncBotfarmClient, BotfarmClient


def test_a_token_that_goes_unencrypted_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("https://farm.example.com", "http://127.0.0.1:8000", "http://[::1]"):
        BotfarmClient(url, token="t0ken")
    monkeypatch.delenv("BOTFARM_TOKEN", raising=False)
    BotfarmClient("http://farm.example.com")
    assert caplog.messages == []
    for make in (BotfarmClient, AsyncBotfarmClient):
        make("http://farm.example.com", token="t0ken")
    assert len(caplog.messages) == 2
    assert all("http://farm.example.com unencrypted" in it for it in caplog.messages)
