"""Tests that need two people: both are leased together, before the test starts."""

import pytest
from browser import PageError

two_people = pytest.mark.bot_user("stage", "regular", count=2)


@pytest.fixture
def people(bot_user, log_in):
    """Two users, each with a browser in which an empty inbox waits."""
    alice, bob = bot_user.leased
    browsers = log_in(alice), log_in(bob)
    for browser in browsers:
        browser.submit("/inbox/clear")
    return (alice, browsers[0]), (bob, browsers[1])


@two_people
def test_a_message_arrives_with_its_senders_login(people):
    (alice, alices), (bob, bobs) = people

    alices.submit("/messages", to=bob.login, text="Tea at four?")

    assert f"{alice.login}: Tea at four?" in bobs.open("/inbox")


@two_people
def test_messages_arrive_in_the_order_they_were_sent(people):
    (_, alices), (bob, bobs) = people

    for text in "one", "two", "three":
        alices.submit("/messages", to=bob.login, text=text)

    inbox = bobs.open("/inbox")
    assert inbox.index("one") < inbox.index("two") < inbox.index("three")


@two_people
def test_a_message_can_be_answered(people):
    (alice, alices), (bob, bobs) = people

    alices.submit("/messages", to=bob.login, text="Tea at four?")
    bobs.submit("/messages", to=alice.login, text="With pleasure.")

    assert f"{bob.login}: With pleasure." in alices.open("/inbox")


@two_people
def test_what_one_sends_is_not_in_ones_own_inbox(people):
    (_, alices), (bob, bobs) = people

    alices.submit("/messages", to=bob.login, text="Tea at four?")

    assert "No messages." in alices.open("/inbox")
    assert "Tea at four?" in bobs.open("/inbox")


def test_a_message_to_nobody_is_refused(bot_user, log_in):
    shop = log_in(bot_user("stage", "regular"))
    shop.submit("/inbox/clear")

    with pytest.raises(PageError, match="Nobody has that login"):
        shop.submit("/messages", to="nobody@shop.example", text="Hello?")

    assert "No messages." in shop.open("/inbox")
