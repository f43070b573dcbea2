"""What the client does about a server that is away, busy, or another one."""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import uuid4

import pytest
from support.stage import (
    REFUSED,
    Reply,
    Script,
    Stage,
    answer,
    asking,
    held,
    refusal,
    waiting,
)

from pytest_botfarm.client.core import (
    LAST_ANSWER,
    RELEASE_PATIENCE,
    SLICE,
    STATE_PATIENCE,
)
from pytest_botfarm.client.errors import (
    AskAgainError,
    DatabaseUnavailableError,
    LeaseEndedError,
    NotABotfarmServerError,
    ProtocolVersionError,
    ServerError,
    ServerNotReachableError,
)
from pytest_botfarm.client.exchange import (
    FIRST_CONTACT,
    RECONNECT,
    SAME_OUTAGE,
    Conversation,
    Moved,
    Request,
    Response,
    TransportFailure,
)
from pytest_botfarm.client.models import Renewed


def cut_off(stage: Stage) -> Callable[[Request], Reply]:
    """A connection that ends a second before its call would have waited enough."""

    def cut(request: Request) -> Reply:
        stage.now += request.body["wait"] - 1
        return TransportFailure("reset")

    return cut


class TestTrouble:
    def test_a_server_that_never_answered_is_given_up_soon_and_then_at_once(
        self, stage: Stage
    ) -> None:
        started = stage.now
        with pytest.raises(ServerNotReachableError, match="connection refused"):
            stage.play(asking(stage, uuid4()), [REFUSED])
        assert FIRST_CONTACT / 2 < stage.now - started <= FIRST_CONTACT
        tried = len(stage.requests)
        with pytest.raises(ServerNotReachableError):
            stage.play(asking(stage, uuid4()), [REFUSED])
        assert len(stage.requests) == tried + 1

    def test_a_server_that_answered_before_has_the_time_of_a_restart(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script: Script = [answer(202, waiting(lease_id)), REFUSED]
        with pytest.raises(ServerNotReachableError):
            stage.play(asking(stage, lease_id), script)
        assert RECONNECT / 2 < sum(stage.sleeps) <= RECONNECT + 1

    def test_what_a_test_asks_of_its_accounts_is_sent_again_after_a_timeout(
        self, stage: Stage
    ) -> None:
        """All may be repeated: whether the server has done it already is not known."""
        stage.protocol.was_reached = True  # with the lease
        user = uuid4(), uuid4()
        for conversation in (
            stage.protocol.save_state(*user, "session", fence=7),
            stage.protocol.drop_state(*user, fence=7),
            stage.protocol.quarantine(user[1], "locked out", None),
        ):
            stage.requests.clear()
            timeout = TransportFailure("no answer within 10 s")
            stage.play(conversation, [timeout, answer(204)], each_takes=10.0)
            first, again = stage.requests
            assert first == again

    def test_a_state_may_be_tried_to_be_saved_for_seconds_only(
        self, stage: Stage
    ) -> None:
        save = stage.protocol.save_state(
            uuid4(), uuid4(), "session", fence=7, patience=STATE_PATIENCE
        )
        with pytest.raises(ServerNotReachableError):
            stage.play(save, [REFUSED])
        assert 0 < sum(stage.sleeps) <= STATE_PATIENCE

    @pytest.mark.parametrize("gives_up_soon", ["renew", "release"])
    def test_what_gives_up_sooner_leaves_a_test_the_time_of_a_restart(
        self, stage: Stage, gives_up_soon: str
    ) -> None:
        lease_id, began = uuid4(), stage.now
        stage.play(asking(stage, lease_id), [answer(200, held(lease_id))])
        conversation: Conversation[object] = (
            stage.protocol.renew({lease_id: 7})
            if gives_up_soon == "renew"
            else stage.protocol.release(lease_id)
        )
        with pytest.raises(ServerNotReachableError):
            stage.play(conversation, [REFUSED])
        assert stage.now - began <= RELEASE_PATIENCE
        script: Script = [*[REFUSED] * 8, answer(200, held(lease_id))]
        stage.play(asking(stage, lease_id), script)
        with pytest.raises(ServerNotReachableError):
            stage.play(asking(stage, uuid4()), [REFUSED])

    def test_all_that_is_asked_in_an_outage_shares_the_time_of_a_restart(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        stage.play(asking(stage, lease_id), [answer(200, held(lease_id))])
        began = stage.now
        for _ in range(3):
            with pytest.raises(ServerNotReachableError):
                stage.play(stage.protocol.release(lease_id), [REFUSED])
        assert stage.now - began <= RELEASE_PATIENCE
        with pytest.raises(ServerNotReachableError):
            stage.play(asking(stage, lease_id), [REFUSED])
        assert RECONNECT / 2 < stage.now - began <= RECONNECT
        # It is another outage, if nobody has tried for so long.
        stage.now = began = stage.now + SAME_OUTAGE + 1.0
        with pytest.raises(ServerNotReachableError):
            stage.play(asking(stage, lease_id), [REFUSED])
        assert RECONNECT / 2 < stage.now - began <= RECONNECT

    def test_the_time_of_a_restart_begins_when_a_waiting_call_is_cut_off(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script: Script = [
            answer(202, waiting(lease_id)),
            cut_off(stage),
            *[REFUSED] * 8,
            answer(200, held(lease_id)),
        ]
        stage.play(asking(stage, lease_id), script)
        assert stage.requests[1].body["wait"] == SLICE
        assert RECONNECT / 2 < sum(stage.sleeps) < RECONNECT

    def test_a_proxy_that_cuts_every_waiting_call_ends_no_wait(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script: Script = [
            answer(202, waiting(lease_id)),
            *[cut_off(stage)] * 5,
            answer(200, held(lease_id)),
        ]
        stage.play(asking(stage, lease_id), script)
        assert stage.now > 1_000 + 2 * RECONNECT

    def test_a_first_call_that_is_cut_off_is_sent_again(self, stage: Stage) -> None:
        lease_id = uuid4()
        script: Script = [cut_off(stage), REFUSED, answer(200, held(lease_id))]
        stage.play(asking(stage, lease_id), script)
        assert stage.requests[0].body["wait"] == FIRST_CONTACT

    def test_a_call_that_was_cut_off_waits_for_what_is_left(self, stage: Stage) -> None:
        lease_id, ends = uuid4(), stage.now + 20
        script: Script = [cut_off(stage), answer(200, held(lease_id))]
        stage.play(asking(stage, lease_id, wait=5), script)
        assert stage.requests[1].body["wait"] == pytest.approx(0.9)
        script = [answer(202, waiting(lease_id)), *script]
        stage.play(asking(stage, lease_id, ends=ends), script)
        left = ends - stage.now
        asked = stage.requests[-1]
        assert (asked.body["wait"], asked.timeout) == (left, left + LAST_ANSWER)

    @pytest.mark.parametrize("state", ["abandoned", "expired"])
    def test_what_was_given_up_in_an_outage_is_asked_for_under_another_id(
        self, stage: Stage, state: str
    ) -> None:
        first, second, began = uuid4(), uuid4(), stage.now

        def grant(request: Request) -> Reply:
            stage.now += 5
            return answer(200, held(second, waited=4.0))

        script: Script = [
            answer(202, waiting(first)),
            cut_off(stage),
            answer(410, refusal("lease_ended", state=state, users=[])),
            grant,
        ]
        asked = asking(stage, first, wait=60, anew=lambda: second)
        lease = stage.play(asked, script)
        paths = [request.path.rpartition("/")[2] for request in stage.requests]
        assert paths == [*[str(first)] * 3, str(second)]
        assert lease.id == second
        assert lease.granted == pytest.approx(stage.now - 1)
        assert lease.waited == pytest.approx(lease.granted - began)

    @pytest.mark.parametrize("state", ["cancelled", "released", "revoked"])
    def test_what_somebody_has_ended_is_not_asked_for_again(
        self, stage: Stage, state: str
    ) -> None:
        ended = answer(410, refusal("lease_ended", state=state, users=[]))
        with pytest.raises(LeaseEndedError):
            stage.play(asking(stage, uuid4(), anew=uuid4), [ended])
        assert len(stage.requests) == 1

    def test_a_server_that_has_moved_is_asked_there_at_once(self, stage: Stage) -> None:
        """Even by a renewal, which is tried once, and however long the move took."""
        lease_id = uuid4()
        renewal = {"id": str(lease_id), "state": "held", "expires_in": 60.0}
        answers = stage.play(
            stage.protocol.renew({lease_id: 7}),
            [Moved("http://there"), answer(200, {"leases": [renewal]})],
            each_takes=RECONNECT,
        )
        assert answers == {lease_id: Renewed(lease_id, 60.0)}
        assert stage.protocol.url == "http://there"
        assert stage.protocol.failures == 1
        assert stage.sleeps == []

    def test_pauses_grow_and_are_bounded(self, stage: Stage) -> None:
        lease_id = uuid4()
        script: Script = [answer(202, waiting(lease_id)), REFUSED]
        with pytest.raises(ServerNotReachableError):
            stage.play(asking(stage, lease_id), script)
        pauses = stage.sleeps[1:]
        assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
        assert max(pauses) == 5.0

    @pytest.mark.parametrize("code", ["too_many_waiting", "too_many_requests"])
    def test_a_busy_server_is_asked_again_when_it_says(
        self, stage: Stage, code: str
    ) -> None:
        lease_id = uuid4()
        busy = answer(429, refusal(code), retry_after="7")
        stage.play(asking(stage, lease_id), [busy] * 9 + [answer(200, held(lease_id))])
        assert len(stage.sleeps) == 9
        assert min(stage.sleeps) > 7

    def test_a_busy_server_is_asked_no_longer_than_the_test_would_wait(
        self, stage: Stage
    ) -> None:
        busy = answer(429, refusal("too_many_waiting"), retry_after="2")
        with pytest.raises(ServerError, match="too_many_waiting"):
            stage.play(asking(stage, uuid4(), wait=60), [busy])
        assert 50 < sum(stage.sleeps) <= 60

    def test_what_ends_a_lease_is_sent_again_when_a_busy_server_says(
        self, stage: Stage
    ) -> None:
        """It asks to stay away for longer than one that is not there is tried."""
        busy = answer(429, refusal("too_many_requests"), retry_after="7")
        held_for = {"id": str(uuid4()), "expires_in": 59.5}
        calls: list[tuple[Conversation[object], Response]] = [
            (stage.protocol.release(uuid4(), fence=7), answer(204)),
            (
                stage.protocol.release_holder("run", outcome="crashed", clean=False),
                answer(200, {"released": 0, "freed": []}),
            ),
            (
                stage.protocol.keep(uuid4(), 7, seconds=60, outcome="failed"),
                answer(200, held_for),
            ),
        ]
        for conversation, done in calls:
            stage.sleeps.clear()
            stage.play(conversation, [busy, busy, done])
            assert len(stage.sleeps) == 2
            assert min(stage.sleeps) > 7
        with pytest.raises(ServerError, match="too_many_requests"):
            stage.play(stage.protocol.release(uuid4()), [busy])

    def test_a_renewal_that_comes_too_soon_is_told_when_to_be_sent_again(
        self, stage: Stage
    ) -> None:
        busy = answer(429, refusal("too_many_requests"), retry_after="3")
        with pytest.raises(AskAgainError) as caught:
            stage.play(stage.protocol.renew({uuid4(): 1}), [busy])
        assert caught.value.retry_after == 3

    def test_a_server_without_its_database_is_asked_again_for_a_while(
        self, stage: Stage
    ) -> None:
        down = answer(503, refusal("database_unavailable"), retry_after="1")
        with pytest.raises(DatabaseUnavailableError):
            stage.play(asking(stage, uuid4()), [down])
        assert 20 < sum(stage.sleeps) <= RECONNECT

    def test_a_senseless_retry_after_is_borne(self, stage: Stage) -> None:
        lease_id = uuid4()
        script = [
            answer(503, refusal("shutting_down"), retry_after="Wed, 21 Oct 2026"),
            answer(200, held(lease_id)),
        ]
        stage.play(asking(stage, lease_id), script)
        assert len(stage.requests) == 2

    def test_a_proxy_that_cannot_reach_the_server_is_not_taken_for_the_server(
        self, stage: Stage
    ) -> None:
        lease_id = uuid4()
        script = [answer(502, protocol=None), answer(200, held(lease_id))]
        stage.play(asking(stage, lease_id), script)
        with pytest.raises(ServerNotReachableError, match=r"proxy.*status 504"):
            stage.play(asking(stage, uuid4()), [answer(504, protocol=None)])

    @pytest.mark.parametrize("status", [200, 301, 401, 404, 500])
    def test_an_answer_without_the_protocols_header_is_of_another_server(
        self, stage: Stage, status: int
    ) -> None:
        with pytest.raises(NotABotfarmServerError, match=r"http://farm.*not a Botfarm"):
            stage.play(asking(stage, uuid4()), [answer(status, protocol=None)])
        assert len(stage.requests) == 1

    @pytest.mark.parametrize(
        ("theirs", "older"), [("0", "the server"), ("2", "this side")]
    )
    def test_a_server_of_another_version_is_named_and_so_is_what_to_upgrade(
        self, stage: Stage, theirs: str, older: str
    ) -> None:
        message = f"speaks protocol {theirs}, this plugin protocol 1. Upgrade {older}"
        with pytest.raises(ProtocolVersionError, match=re.escape(message)):
            stage.play(asking(stage, uuid4()), [answer(200, {}, protocol=theirs)])
