"""Which texts are logins: none that people could take for another one."""

# ruff: noqa: RUF001 - letters that look alike are what this is about

from __future__ import annotations

from botfarm_server.domain.logins import no_login

TAKEN = (
    *("Renée", "müller-1", "łukasz", "Ọ̀ṣun", "\u0131ş\u0131k", "o'neill+1"),
    *("ka\u02bbiulani", "Øyvind", "weiß", "Nguyễn.Thị@example.com", "þór", "col·lell"),
    *("иван@example.com", "Анна.Смирнова", "\u043e\u0441\u0430", "bot_тест", "ё.ж"),
    *("\u0430.иванов@example.com", "\u0410.\u0421.Пушкин@example.com", "Ігор-1@x.ua"),
    *("\u0441\u0430\u0440\u0430.иванова@example.com", "лук\u02bcяненко", "ђорђе@x.rs"),
    *("Ωμέγα-1@example.com", "ψάρι", "\u03ac\u03bd\u03bd\u03b1.παππά@example.com"),
    *("Հայկ@example.com", "\u0531.Սարգսյան@example.com", "გიორგი", "ᏣᎳᎩ-1"),
    *("محمد@example.com", "\u0627.حسن@example.com", "علي١٢", "ישראל.ג\u05f3@x.co"),
    *("हिन्दी", "राम१@example.com", "தமிழ்", "สมชาย", "አበበ@example.com", "ଓଡ଼ିଆ"),
    *(
        "山田太郎",
        "user山田",
        "ラーメン2@example.com",
        "佐々木",
        "ミノル-1@example.com",
    ),
    *(
        "김철수bot",
        "김.철수@example.com",
        "李小龙@example.com",
        "李\u4e00-1",
        "丁\u4e00",
    ),
)
LOOK_ALIKES = (
    *("\u0430lice", "\u0441\u043e\u0440\u0435@example.com", "test-\u04301"),
    *("bot_\u0430", "user.\u043e.neil", "bot \u0401", "\u0430\u0307lice"),
    *("alic\u03b5", "bot-\u0391", "bot-\u03cc", "\u0585livia", "ali\u0627"),
    *("\u13aalice", "bot-\u13aa", "bot_\ua4ee", "bot-\u2c9f", "bot-\uab75"),
    *("\uab70avid", "bot.\uab72\uab7c", "bot-\u03f3", "bot-\u2d4f", "\u16c1-bot"),
    *("\u0251lice", "\u1d00lice", "\u0261o", "a\u01c0ice", "\u0185ob", "al\u0269ce"),
    *("l\u0307ogin", "i\u0307da", "o\u0338le", "bo\u0301\u0301t"),
    *("\uff41lice", "\u217cogin", "\U0001d41alice", "bot\ufe581"),
    *(f"bot{dash}1" for dash in "\u2010\u2011\u2012\u2013\u2212\u02d7\u02cd\u2796"),
    *("o\u2019neill", "bot\u22151", "bot\u2236x", "иван\u2010иванов"),
    *("bot\u0967", "bot-\u0966", "\u0661bot", "राम१-2", "\u0663\u06f4"),
    *("a\u30ceb", "user\u3007", "a.иванов@example.com", "\u0430.bot.иванов"),
    *("capa.иванова@example.com", "\u043e.παππάς", "\u0131.\u0456.жук"),
    "\u0430@\u0441\u043e.example.com",
    *("l\u4e28", "1\u4e00", "\u4e28ogin", "bot\u4e59山", "n\u0308\u4e28", "山\u4e281"),
)


def test_people_s_names_in_many_scripts_are_logins() -> None:
    assert {it: no_login(it) for it in TAKEN} == dict.fromkeys(TAKEN)


def test_what_looks_like_another_login_is_none() -> None:
    assert [it for it in LOOK_ALIKES if no_login(it) is None] == []


def test_a_refusal_names_the_character_and_what_it_looks_like() -> None:
    refusals = {
        "bot\u22121": "contain U+2212 (MINUS SIGN), which looks like -",
        "\u0430lice": "mix Cyrillic and Latin letters in one word: "
        "U+0430 (CYRILLIC SMALL LETTER A), which looks like a",
        "bot-\u03ac": "have a word that looks Latin: "
        "U+03AC (GREEK SMALL LETTER ALPHA WITH TONOS), which looks like a",
        "a.иванов": "have a word that looks Cyrillic: U+0061 (LATIN SMALL LETTER A), "
        "which looks like U+0430 (CYRILLIC SMALL LETTER A)",
        "राम१-2": "mix digits of several scripts: U+0967 (DEVANAGARI DIGIT ONE)",
    }
    assert {it: no_login(it) for it in refusals} == {
        login: f"must not {why}" for login, why in refusals.items()
    }
