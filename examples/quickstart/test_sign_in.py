import pytest
from browser import PageError


def test_the_right_password_opens_the_shop(bot_user, log_in):
    user = bot_user("stage", "regular")

    shop = log_in(user)

    for _ in range(5):
        assert f"Welcome, {user.login}" in shop.open("/")


def test_a_wrong_password_is_refused_and_disturbs_nobody(bot_user, log_in):
    user = bot_user("stage", "regular")
    shop = log_in(user)

    with pytest.raises(PageError, match="Wrong login or password"):
        shop.submit("/login", login=user.login, password="a guess")

    for _ in range(4):
        assert f"Welcome, {user.login}" in shop.open("/")


def test_a_second_login_ends_the_first_session(bot_user, log_in):
    user = bot_user("stage", "regular")
    desktop = log_in(user)
    assert "Welcome" in desktop.open("/")

    phone = log_in(user)

    with pytest.raises(PageError, match="signed in elsewhere"):
        desktop.open("/")
    for _ in range(3):
        assert "Welcome" in phone.open("/")


def test_the_first_session_can_be_taken_back(bot_user, log_in):
    user = bot_user("stage", "regular")
    desktop, phone = log_in(user), log_in(user)

    desktop.submit("/login", login=user.login, password=user.password)

    assert "Welcome" in desktop.open("/")
    with pytest.raises(PageError, match="signed in elsewhere"):
        phone.open("/")
    assert "Welcome" in desktop.open("/")


def test_signing_out_ends_the_session(bot_user, log_in):
    shop = log_in(bot_user("stage", "regular"))
    for path in "/", "/profile", "/cart":
        shop.open(path)

    shop.submit("/logout")

    with pytest.raises(PageError, match="Please sign in"):
        shop.open("/profile")
