"""Tests that need a user with certain rights: labels choose it."""

import pytest
from browser import PageError


def test_an_admin_can_publish_a_notice(bot_user, log_in):
    admin = log_in(bot_user("stage", "regular", labels={"role": "admin"}))

    admin.submit("/notices", text="Closed on Sunday")

    for _ in range(3):
        assert "Closed on Sunday" in admin.open("/")


def test_an_admin_can_take_a_notice_down(bot_user, log_in):
    admin = log_in(bot_user("stage", "regular", labels={"role": "admin"}))
    admin.submit("/notices", text="Closed on Monday")

    assert "Closed on Monday" in admin.open("/")
    assert "Closed on Monday" not in admin.submit("/notices", text="")


def test_a_customer_cannot_publish_a_notice(bot_user, log_in):
    customer = log_in(bot_user("stage", "regular", labels={"role": "customer"}))
    customer.submit("/profile", name="Not an admin")

    with pytest.raises(PageError, match="Only an admin may do that"):
        customer.submit("/notices", text="Everything is free")

    assert "Everything is free" not in customer.open("/")


@pytest.mark.bot_user("stage", "regular", labels={"role": "admin"})
@pytest.mark.bot_user("stage", "regular", labels={"role": "customer"})
def test_customers_see_what_an_admin_publishes(bot_user, log_in):
    admin = log_in(bot_user("stage", "regular", labels={"role": "admin"}))
    customer = log_in(bot_user("stage", "regular", labels={"role": "customer"}))

    admin.submit("/notices", text="Closed on Tuesday")

    assert "Closed on Tuesday" in customer.open("/")
