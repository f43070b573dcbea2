"""The client's side of the protocol, played without a network."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from support.stage import (
    HOLDER,
    ME,
    REFUSED,
    WANTS,
    Reply,
    Script,
    Stage,
    answer,
    asking,
    held,
    refusal,
    waiting,
)

from pytest_botfarm.client.core import LAST_ANSWER, SLICE
from pytest_botfarm.client.errors import (
    AcquireTimeoutError,
    LeaseEndedError,
    ServerNotReachableError,
    WrongAnswerError,
)
from pytest_botfarm.client.exchange import (
    LONGEST_PAUSE,
    Request,
    Response,
    TransportFailure,
)
from pytest_botfarm.client.models import Freed, Holder, Lost, NewUser, Renewed, Want


class TestAcquire:
    def test_a_free_user_is_granted_in_one_call(self, stage: Stage) -> None:
        lease_id = uuid4()
        lease = stage.play(asking(stage, lease_id), [answer(200, held(lease_id))])
        (request,) = stage.requests
        assert (request.method, request.path) == ("PUT", f"/api/v1/leases/{lease_id}")
        assert request.body["holder"]["test_id"] == ME.test_id
        assert request.body["wants"][0]["labels"] == {"role": "admin"}
        assert (lease.id, lease.fence, lease.users[0].login) == (
            lease_id,
            7,
            "alice@example.com",
        )

    def test_a_long_wait_is_asked_for_in_slices_under_one_id(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script = [answer(202, waiting(lease_id))] * 2 + [answer(200, held(lease_id))]
        stage.play(asking(stage, lease_id, wait=50), script, each_takes=SLICE)
        assert [request.body["wait"] for request in stage.requests] == [5, 20, 10]
        assert {request.path for request in stage.requests} == {
            f"/api/v1/leases/{lease_id}"
        }

    def test_a_lost_answer_is_asked_for_again_under_the_same_id(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script: Script = [TransportFailure("reset"), answer(200, held(lease_id))]
        stage.play(asking(stage, lease_id), script)
        first, second = stage.requests
        assert (first.path, first.body) == (second.path, second.body)
        assert stage.protocol.failures == 1

    def test_a_wait_that_ends_gives_up_its_place_and_names_who_is_in_the_way(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script = [answer(202, waiting(lease_id)), answer(204)]
        with pytest.raises(AcquireTimeoutError) as caught:
            stage.play(asking(stage, lease_id, wait=20), script, each_takes=SLICE)
        assert [request.method for request in stage.requests] == ["PUT", "DELETE"]
        assert str(caught.value) == (
            "No account became free within 20 s for stage/regular role=admin.\n"
            "Held at present:\n"
            "  bob@example.com: for 41 s by tests/test_other.py::test_it "
            "(worker gw1, host ci-3, run run)\n"
            "Wait longer (wait=…), add accounts to the pool, or lease fewer at once."
        )

    def test_a_wait_that_ends_tells_how_many_match_and_why_they_are_not_free(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        locked = {"login": "alice@example.com", "reason": "locked\nout" + "." * 200}
        matching = {
            "free": 1,
            "held": 0,
            "resting": 2,
            "quarantined": {"count": 4, "first": [locked]},
        }
        answered = {**waiting(lease_id), "blockers": [], "matching": matching}
        with pytest.raises(AcquireTimeoutError) as caught:
            stage.play(
                asking(stage, lease_id, wait=20), [answer(202, answered)], each_takes=20
            )
        _, counted, quarantined, _ = str(caught.value.advising("Wait")).splitlines()
        assert counted == (
            "7 accounts match: 1 free (too few, or for those who wait before), "
            "2 resting, 4 in quarantine."
        )
        assert quarantined.startswith("In quarantine: alice@example.com (locked out..")
        assert "..…), 3 more. Bring one back with `botfarm users restore" in quarantined
        assert len(quarantined) < 300

    def test_a_wait_is_told_of_after_three_seconds_and_then_twice_a_minute(
        self, stage: Stage
    ) -> None:
        lease_id, told = uuid4(), []
        conversation = stage.protocol.acquire(
            lease_id,
            WANTS,
            ME,
            ttl=60,
            wait=300,
            on_waiting=lambda waiting: told.append((stage.now, waiting.place)),
        )

        def wait(request: Request) -> Reply:
            stage.now += request.body["wait"]
            if stage.now > 1_090:
                return answer(200, held(lease_id))
            return answer(202, waiting(lease_id))

        stage.play(conversation, [wait])
        assert [request.body["wait"] for request in stage.requests[:3]] == [3, 20, 20]
        assert told == [(1_003, 2), (1_043, 2), (1_063, 2)]

    def test_a_wait_that_has_an_end_is_over_by_then_whatever_the_trouble(
        self, stage: Stage
    ) -> None:
        lease_id, ends = uuid4(), stage.now + 10
        script: Script = [answer(202, waiting(lease_id)), REFUSED]
        with pytest.raises(ServerNotReachableError):
            stage.play(asking(stage, lease_id, ends=ends), script)
        assert ends - LONGEST_PAUSE < stage.now <= ends
        asked = stage.requests[0]
        assert (asked.body["wait"], asked.timeout) == (5, 10 + LAST_ANSWER)

    def test_an_answer_that_comes_back_early_is_not_asked_for_in_a_tight_loop(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script = [answer(202, waiting(lease_id))] * 3 + [answer(200, held(lease_id))]
        stage.play(asking(stage, lease_id), script)
        assert stage.sleeps == [0.5, 0.5, 0.5]

    def test_another_leases_answer_is_refused(self, stage: Stage) -> None:
        with pytest.raises(WrongAnswerError, match="asked for lease"):
            stage.play(asking(stage, uuid4()), [answer(200, held(uuid4()))])

    @pytest.mark.parametrize("content", [b"[]", b"<html>", b"{}", b"null", b"\xff"])
    def test_an_answer_of_another_form_is_refused(
        self, stage: Stage, content: bytes
    ) -> None:
        response = Response(200, {"botfarm-protocol": "1"}, content)
        with pytest.raises(WrongAnswerError, match="not of the protocol's form"):
            stage.play(asking(stage, uuid4()), [response])

    def test_a_lease_counts_from_its_grant_and_not_from_the_call_that_waited_for_it(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script = [answer(200, held(lease_id, waited=18.0))]
        lease = stage.play(asking(stage, lease_id), script, each_takes=19.0)
        assert lease.granted == 1_018.0

    def test_a_server_whose_clock_jumped_cannot_put_the_grant_into_the_future(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script = [answer(200, held(lease_id, waited=3_600.0))]
        lease = stage.play(asking(stage, lease_id), script, each_takes=1.0)
        assert lease.granted == stage.now

    def test_the_repr_of_a_lease_shows_no_secret(self, stage: Stage) -> None:
        lease_id = uuid4()
        lease = stage.play(asking(stage, lease_id), [answer(200, held(lease_id))])
        assert lease.users[0].password == "correct horse"
        assert "horse" not in repr(lease)
        assert "seed" not in repr(lease)
        assert lease.users[0].state == "session of alice"
        assert "session" not in repr(lease)

    def test_a_server_of_the_version_before_sends_no_state(self, stage: Stage) -> None:
        lease_id = uuid4()
        old = held(lease_id)
        del old["users"][0]["state"], old["users"][0]["state_is_apart"]
        lease = stage.play(asking(stage, lease_id), [answer(200, old)])
        assert lease.users[0].state is None


class TestOtherCalls:
    def test_a_release_tells_fence_and_outcome(self, stage: Stage) -> None:
        lease_id = uuid4()
        conversation = stage.protocol.release(
            lease_id, fence=7, outcome="failed", clean=False
        )
        stage.play(conversation, [answer(204)])
        (request,) = stage.requests
        assert (request.method, request.path) == (
            "DELETE",
            f"/api/v1/leases/{lease_id}",
        )
        assert request.body == {"outcome": "failed", "clean": False, "fence": 7}

    def test_a_lease_that_the_server_never_heard_of_is_released(
        self, stage: Stage
    ) -> None:
        script = [answer(404, refusal("lease_not_found"))]
        stage.play(stage.protocol.release(uuid4()), script)

    def test_a_release_is_tried_for_seconds_only(self, stage: Stage) -> None:
        with pytest.raises(ServerNotReachableError):
            stage.play(stage.protocol.release(uuid4()), [REFUSED])
        assert sum(stage.sleeps) <= 5.0

    def test_a_late_release_learns_who_has_the_users_now(self, stage: Stage) -> None:
        passed_on = {
            "user_id": str(uuid4()),
            "login": "alice@example.com",
            "holder": HOLDER,
        }
        facts = {"state": "expired", "ended_ago": 3.5, "users": [passed_on]}
        script = [answer(410, refusal("lease_ended", **facts))]
        with pytest.raises(LeaseEndedError) as caught:
            stage.play(stage.protocol.release(uuid4(), fence=1), script)
        assert (caught.value.state, caught.value.ended_ago) == ("expired", 3.5)
        (user,) = caught.value.users
        assert user.holder == Holder(
            "run", "gw1", "tests/test_other.py::test_it", "ci-3"
        )

    def test_a_state_that_is_apart_is_fetched_unless_that_takes_too_long(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        apart = held(lease_id)
        apart["users"][0] |= {"state": None, "state_is_apart": True}
        path = f"/api/v1/leases/{lease_id}/users/{apart['users'][0]['id']}/state"
        told = answer(200, {"state": "session of alice"})
        lease = stage.play(asking(stage, lease_id), [answer(200, apart), told])
        assert lease.users[0].state == "session of alice"
        fetching = stage.requests[-1]
        assert (fetching.method, fetching.path) == ("GET", path)
        busy = refusal("database_unavailable")
        script = [answer(200, apart), *[answer(503, busy, retry_after="1")] * 20]
        before = stage.now
        lease = stage.play(asking(stage, lease_id), script)
        assert (lease.users[0].state, stage.now - before < 10) == (None, True)

    def test_a_state_is_kept_and_dropped_under_the_leases_fence(
        self, stage: Stage
    ) -> None:
        lease_id, user_id = uuid4(), uuid4()
        save = stage.protocol.save_state(lease_id, user_id, "session", fence=7)
        stage.play(save, [answer(204)])
        stage.play(stage.protocol.drop_state(lease_id, user_id, fence=7), [answer(204)])
        saving, dropping = stage.requests
        path = f"/api/v1/leases/{lease_id}/users/{user_id}/state"
        assert (saving.method, saving.path) == ("PUT", path)
        assert saving.body == {"state": "session", "fence": 7, "expires_in": None}
        assert "session" not in repr(saving)
        assert (dropping.method, dropping.path) == ("DELETE", path)
        assert dropping.body == {"fence": 7}

    def test_one_call_renews_all_and_tells_the_lost_from_the_kept(
        self, stage: Stage
    ) -> None:
        kept, lost = uuid4(), uuid4()
        told = [
            {"id": str(kept), "state": "held", "expires_in": 60.0},
            {
                "id": str(lost),
                "state": "revoked",
                "detail": "An admin broke it.",
                "ended_ago": 2.0,
                "users": [],
            },
        ]
        answers = stage.play(
            stage.protocol.renew({kept: 1, lost: 2}), [answer(200, {"leases": told})]
        )
        assert answers == {
            kept: Renewed(kept, 60.0),
            lost: Lost(lost, "revoked", "An admin broke it.", 2.0, ()),
        }
        assert len(stage.requests) == 1

    def test_more_renewals_than_one_call_may_carry_take_two(self, stage: Stage) -> None:
        fences = {uuid4(): 1 for _ in range(1_001)}

        def renewed(request: Request) -> Reply:
            told = [
                {"id": lease["id"], "state": "held", "expires_in": 60.0}
                for lease in request.body["leases"]
            ]
            return answer(200, {"leases": told})

        answers = stage.play(stage.protocol.renew(fences), [renewed])
        assert answers.keys() == fences.keys()
        assert len(stage.requests) == 2

    def test_a_renewal_that_is_answered_for_other_leases_is_refused(
        self, stage: Stage
    ) -> None:
        told = [{"id": str(uuid4()), "state": "held", "expires_in": 60.0}]
        with pytest.raises(WrongAnswerError, match="other leases"):
            stage.play(
                stage.protocol.renew({uuid4(): 1}), [answer(200, {"leases": told})]
            )

    def test_a_renewal_is_tried_once(self, stage: Stage) -> None:
        with pytest.raises(ServerNotReachableError):
            stage.play(stage.protocol.renew({uuid4(): 1}), [REFUSED])
        assert len(stage.requests) == 1

    def test_a_lease_is_kept_by_a_call_that_can_be_sent_again(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        conversation = stage.protocol.keep(lease_id, 7, seconds=60, outcome="failed")
        told = {"id": str(lease_id), "expires_in": 59.5}
        script: Script = [TransportFailure("reset"), answer(200, told)]
        assert stage.play(conversation, script) == 59.5
        first, second = stage.requests
        assert first == second
        assert first.path == f"/api/v1/leases/{lease_id}/keep"
        assert first.body == {"fence": 7, "seconds": 60, "outcome": "failed"}

    def test_a_dead_workers_leases_end_in_one_call(self, stage: Stage) -> None:
        conversation = stage.protocol.release_holder(
            "run", "gw1", outcome="crashed", clean=False
        )
        freed = {"id": "-", "test_id": "test_b", "logins": ["bob"], "quarantined": {}}
        told = answer(200, {"released": 2, "freed": [freed]})
        assert stage.play(conversation, [told]) == [Freed("test_b", ["bob"], {})]
        (request,) = stage.requests
        assert request.body == {
            "run_id": "run",
            "worker_id": "gw1",
            "outcome": "crashed",
            "clean": False,
        }


class TestNewAccounts:
    def test_a_wait_that_keeps_its_place_goes_on_with_the_time_of_its_first_call(
        self, stage: Stage
    ) -> None:
        lease_id, asked = uuid4(), stage.now
        keeping = stage.protocol.acquire(
            lease_id, WANTS, ME, ttl=60, wait=1, since=asked, keep_place=True
        )
        with pytest.raises(AcquireTimeoutError):
            stage.play(keeping, [answer(202, waiting(lease_id))], each_takes=1.0)
        assert [request.method for request in stage.requests] == ["PUT"]
        again = stage.protocol.acquire(lease_id, WANTS, ME, ttl=60, wait=9, since=asked)
        granted = answer(200, held(lease_id, waited=2.5))
        assert stage.play(again, [granted], each_takes=3.0).granted == asked + 2.5

    def test_an_account_is_stored_in_the_place_that_was_reserved_for_it(
        self, stage: Stage
    ) -> None:
        want = Want("stage", "regular", UUID(int=1), {"role": "admin"})
        script: Script = [answer(201, {}), REFUSED, answer(201, {}), answer(204)]
        place = stage.play(stage.protocol.reserve(want, limit=3), script[:1])
        new = NewUser("made", "secret", labels={"plan": "free"}, secrets={"pin": "1"})
        stage.play(stage.protocol.create_user(want, new, place), script[1:3])
        stage.play(stage.protocol.give_place_back(place), script[3:])
        reserved, stored, repeated, given_back = stage.requests
        pool = {"env": "stage", "domain": "regular", "project_id": str(UUID(int=1))}
        assert reserved.body == {"id": str(place), **pool, "limit": 3}
        assert stored == repeated
        assert stored.body == {
            "login": "made",
            "password": "secret",
            "secrets": {"pin": "1"},
            **pool,
            "labels": {"role": "admin", "plan": "free"},
            "reservation_id": str(place),
        }
        assert given_back.path == f"/api/v1/reservations/{place}"
        assert "secret" not in repr(new)

    def test_free_users_that_match_a_want_are_counted(self, stage: Stage) -> None:
        want = Want("stage", "regular", labels={"role": "a&b"}, count=2)
        counted = stage.play(stage.protocol.count_free(want), [answer(200, [{}, {}])])
        assert counted == 2
        (request,) = stage.requests
        query = "env=stage&domain=regular&state=free&label=role%3Da%26b"
        assert request.path == f"/api/v1/users?{query}&limit=2"
        # A page may end early, and tells where it goes on.
        pages = [
            answer(200, [{}], botfarm_next_cursor="W10="),
            answer(200, [{}]),
        ]
        assert stage.play(stage.protocol.count_free(want), pages) == 2
        assert stage.requests[-1].path.endswith(f"{query}&limit=1&cursor=W10%3D")
        with pytest.raises(WrongAnswerError):
            stage.play(stage.protocol.count_free(want), [answer(200, {})])

    def test_checks_are_sent_in_as_few_parts_as_a_server_takes(
        self, stage: Stage
    ) -> None:
        """Fifty leases, a hundred wants, and half of the bytes at most in each."""
        want, long = (
            Want("stage", "regular"),
            {"note": "\u20ac" * 255, "other": "x" * 255},
        )
        heavy = [replace(want, labels={**long, str(it): "x"}) for it in range(20)]
        leases = [*([[want]] * 51), *([[want] * 20] * 6), *([heavy] * 7)]

        def told(request: Request) -> Response:
            parts = request.body["leases"]
            prospects = [{"matching": [1] * len(it["wants"])} for it in parts]
            return answer(200, {"leases": [{**it, "error": None} for it in prospects]})

        prospects = stage.play(stage.protocol.check(leases, patience=1.0), [told])
        sent = [request.body["leases"] for request in stage.requests]
        assert [len(it.matching) for it in prospects] == list(map(len, leases))
        assert [len(it) for it in sent] == [50, 5, 5, 3, 1]
        assert max(len(json.dumps(it)) for it in sent) < 140_000


def test_wants_that_look_alike_are_told_apart() -> None:
    one = Want("stage", "regular", labels={"a": "1 b=2"})
    two = Want("stage", "regular", labels={"b": "2", "a": "1"})
    assert str(one) == str(two)
    assert one.key != two.key
    assert two.key == Want("stage", "regular", labels={"a": "1", "b": "2"}).key
