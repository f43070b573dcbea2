import pytest
from browser import PageError


@pytest.fixture
def shop(bot_user, log_in):
    """The shop, seen by a customer who has nothing to do."""
    shop = log_in(bot_user("stage", "regular"))
    shop.submit("/todos/clear")
    return shop


def test_a_cleared_list_says_so(shop):
    for _ in range(4):
        assert "Nothing to do." in shop.open("/todos")


def test_todos_are_listed_in_the_order_they_came(shop):
    for text in "wake up", "drink tea", "write tests":
        shop.submit("/todos/add", text=text)

    todos = shop.open("/todos")
    assert todos.index("wake up") < todos.index("drink tea") < todos.index("write")


def test_what_is_done_leaves_the_list(shop):
    shop.submit("/todos/add", text="drink tea")
    shop.submit("/todos/add", text="write tests")

    shop.submit("/todos/done", text="drink tea")

    todos = shop.open("/todos")
    assert "write tests" in todos
    assert "drink tea" not in todos


def test_the_same_todo_twice_has_to_be_done_twice(shop):
    shop.submit("/todos/add", text="drink tea")
    shop.submit("/todos/add", text="drink tea")

    assert "drink tea" in shop.submit("/todos/done", text="drink tea")
    assert "Nothing to do." in shop.submit("/todos/done", text="drink tea")


def test_what_is_not_on_the_list_cannot_be_done(shop):
    shop.submit("/todos/add", text="write tests")

    with pytest.raises(PageError, match="no such thing"):
        shop.submit("/todos/done", text="rest")

    assert "write tests" in shop.open("/todos")
