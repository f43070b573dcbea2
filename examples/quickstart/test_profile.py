import pytest
from browser import PageError


def test_a_name_is_saved(bot_user, log_in):
    shop = log_in(bot_user("stage", "regular"))

    shop.submit("/profile", name="Hedy Lamarr")

    for _ in range(3):
        assert "Name: Hedy Lamarr" in shop.open("/profile")


def test_spaces_around_a_name_are_dropped(bot_user, log_in):
    shop = log_in(bot_user("stage", "regular"))
    shop.submit("/profile", name="Before")

    assert "<p>Name: Radia Perlman</p>" in shop.submit(
        "/profile", name="  Radia Perlman "
    )


def test_an_empty_name_is_refused_and_the_old_one_stays(bot_user, log_in):
    shop = log_in(bot_user("stage", "regular"))
    shop.submit("/profile", name="Barbara Liskov")

    with pytest.raises(PageError, match="must not be empty"):
        shop.submit("/profile", name=" ")

    assert "Name: Barbara Liskov" in shop.open("/profile")


def test_a_name_is_shown_as_text_and_never_as_markup(bot_user, log_in):
    shop = log_in(bot_user("stage", "regular"))

    shop.submit("/profile", name="<script>alert(1)</script>")

    for _ in range(3):
        assert "Name: &lt;script&gt;" in shop.open("/profile")


def test_a_name_is_still_there_after_signing_in_again(bot_user, log_in):
    user = bot_user("stage", "regular")
    log_in(user).submit("/profile", name="Mary Jackson")

    assert "Name: Mary Jackson" in log_in(user).open("/profile")
