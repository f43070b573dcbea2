import pytest
from browser import PageError


@pytest.fixture
def shop(bot_user, log_in):
    """The shop, seen by a customer whose cart is empty."""
    shop = log_in(bot_user("stage", "regular"))
    shop.submit("/cart/empty")
    return shop


def test_an_emptied_cart_says_so(shop):
    for _ in range(4):
        assert "Your cart is empty." in shop.open("/cart")


def test_an_item_goes_into_the_cart(shop):
    shop.submit("/cart/add", item="tea")

    for _ in range(3):
        assert "1 x tea" in shop.open("/cart")


def test_counts_of_the_same_item_add_up(shop):
    for count in "1", "2", "3":
        shop.submit("/cart/add", item="tea", count=count)

    assert "6 x tea" in shop.open("/cart")


def test_a_removed_item_is_gone_and_the_others_stay(shop):
    shop.submit("/cart/add", item="tea")
    shop.submit("/cart/add", item="biscuits")

    shop.submit("/cart/remove", item="tea")

    cart = shop.open("/cart")
    assert "biscuits" in cart
    assert "tea" not in cart


def test_buying_thanks_the_customer_and_empties_the_cart(shop):
    shop.submit("/profile", name="Dorothy Vaughan")
    shop.submit("/cart/add", item="tea", count="2")
    shop.submit("/cart/add", item="cups", count="4")

    assert "Thank you, Dorothy Vaughan: 6 items" in shop.submit("/cart/buy")
    assert "Your cart is empty." in shop.open("/cart")


def test_an_empty_cart_cannot_be_bought(shop):
    with pytest.raises(PageError, match="nothing to buy"):
        shop.submit("/cart/buy")

    assert "Your cart is empty." in shop.open("/cart")


def test_a_cart_is_still_there_after_signing_in_again(bot_user, log_in):
    user = bot_user("stage", "regular")
    shop = log_in(user)
    shop.submit("/cart/empty")
    shop.submit("/cart/add", item="tea", count="3")

    assert "3 x tea" in log_in(user).open("/cart")
