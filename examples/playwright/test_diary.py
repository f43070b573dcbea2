import pytest
from playwright.sync_api import expect


@pytest.fixture
def write(page):
    def write_(entry):
        page.get_by_label("Entry").fill(entry)
        page.get_by_role("button", name="Write").click()
        expect(page.get_by_label("Entry")).to_be_empty()

    return write_


def test_the_diary_is_its_owners(page, user):
    expect(page.get_by_role("heading")).to_have_text(f"Dear diary of {user.login}")


def test_a_new_diary_is_empty(page):
    expect(page.get_by_role("listitem")).to_have_count(0)


def test_entries_stand_in_the_order_in_which_they_were_written(page, write):
    write("It rained.")
    write("It still rains.")

    expect(page.get_by_role("listitem")).to_have_text(["It rained.", "It still rains."])


def test_an_entry_is_there_after_a_reload(page, write):
    write("To the theatre.")
    page.reload()

    expect(page.get_by_role("listitem")).to_have_text("To the theatre.")


def test_an_entry_of_spaces_is_none(page, write):
    write("   ")

    expect(page.get_by_role("listitem")).to_have_count(0)


def test_markup_is_shown_as_it_was_written(page, write):
    write("<b>Bold</b> words.")

    expect(page.get_by_role("listitem")).to_have_text("<b>Bold</b> words.")


def test_all_entries_can_be_torn_out(page, write):
    write("Best forgotten.")
    page.get_by_role("button", name="Tear all out").click()

    expect(page.get_by_role("listitem")).to_have_count(0)


def test_who_signs_out_has_to_sign_in_again(page, user):
    page.get_by_role("button", name="Sign out").click()
    user.drop_state()  # the session of the saved state is over

    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
