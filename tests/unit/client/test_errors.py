"""Every refusal of the server is an error that says what it is."""

from __future__ import annotations

import json
import pickle
import re
import traceback
from pathlib import Path

from support.stage import (
    WANTS,
    refusal,
)

import pytest_botfarm
from pytest_botfarm.client import wire
from pytest_botfarm.client.errors import (
    AcquireTimeoutError,
    BotfarmError,
    InvalidRequestError,
    NoSuchPoolError,
    PoolFullError,
    PoolTooSmallError,
    ServerError,
    TooManyPlacesError,
)
from pytest_botfarm.client.models import PoolSize, Quarantined

PROTOCOL_PAGE = Path(__file__).parents[3] / "docs" / "protocol.md"


class TestErrors:
    def test_public_errors_appear_under_the_names_that_they_are_imported_by(
        self,
    ) -> None:
        names = [name for name in pytest_botfarm.__all__ if name.endswith("Error")]
        for name in names:
            kind = getattr(pytest_botfarm, name)
            assert issubclass(kind, BotfarmError)
            assert f"{kind.__module__}.{kind.__qualname__}" == f"pytest_botfarm.{name}"
        told = traceback.format_exception_only(BotfarmError("no account"))
        assert told == ["pytest_botfarm.BotfarmError: no account\n"]

    def test_an_error_crosses_to_another_process_with_all_that_it_tells(self) -> None:
        refused = NoSuchPoolError("none", status=404, facts={"quarantined": None})
        timeout = AcquireTimeoutError(WANTS, waited=3.0, blockers=())
        for error in (refused, timeout):
            copied = pickle.loads(pickle.dumps(error))
            assert type(copied) is type(error)
            assert (str(copied), vars(copied)) == (str(error), vars(error))

    def test_every_code_of_the_protocol_is_an_error_of_its_own(self) -> None:
        rows = re.findall(
            r"^\| (\d{3}) \| (.+?) \|", PROTOCOL_PAGE.read_text(), re.MULTILINE
        )
        codes = [
            (int(status), code)
            for status, cell in rows
            for code in re.findall(r"`(\w+)`", cell)
        ]
        assert len(codes) >= 17
        kinds = {
            code: type(wire.error_of(status, json.dumps(refusal(code)).encode()))
            for status, code in codes
        }
        assert ServerError not in kinds.values()
        assert len(set(kinds.values())) == len(codes)
        assert all(kind.code == code for code, kind in kinds.items())

    def test_a_code_of_a_newer_server_still_says_what_is_wrong(self) -> None:
        error = wire.error_of(418, json.dumps(refusal("teapot", size=2)).encode())
        assert type(error) is ServerError
        assert (error.code, error.status, str(error)) == (
            "teapot",
            418,
            "The server says teapot.",
        )
        assert error.facts == {"size": 2}

    def test_an_error_without_the_protocols_form_still_tells_its_status(self) -> None:
        assert "status 500" in str(wire.error_of(500, b"Internal Server Error"))

    def test_facts_come_typed(self) -> None:
        pools = [{"env": "stage", "domain": "regular", "users": 2}]
        missing = wire.error_of(
            404, json.dumps(refusal("no_such_pool", pools=pools)).encode()
        )
        assert isinstance(missing, NoSuchPoolError)
        assert missing.pools == (PoolSize("stage", "regular", 2),)
        assert missing.quarantined.count == 0
        alice = {"login": "alice", "reason": "locked out"}
        locked = {"count": 2, "first": [alice]}
        small = wire.error_of(
            409,
            json.dumps(
                refusal("pool_too_small", asked=3, existing=2, quarantined=locked)
            ).encode(),
        )
        assert isinstance(small, PoolTooSmallError)
        assert (small.asked, small.existing) == (3, 2)
        assert small.quarantined == Quarantined(2, {"alice": "locked out"})
        facts = {"limit": 3, "existing": 1, "reserved": 2}
        full = wire.error_of(409, json.dumps(refusal("pool_full", **facts)).encode())
        assert isinstance(full, PoolFullError)
        assert full.is_being_filled
        many = wire.error_of(409, json.dumps(refusal("too_many_places")).encode())
        assert isinstance(many, TooManyPlacesError)

    def test_an_invalid_request_names_its_fields_once_and_as_a_test_does(self) -> None:
        errors = [
            {"field": f"wants[{index}].env", "message": "must be one of prod, stage"}
            for index in range(2)
        ]
        error = wire.error_of(
            422, json.dumps(refusal("invalid_request", errors=errors)).encode()
        )
        assert isinstance(error, InvalidRequestError)
        assert str(error) == (
            "The server refused this: env: must be one of prod, stage."
        )
