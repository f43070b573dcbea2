"""Which texts are logins: none that people could take for another one."""

from __future__ import annotations

from botfarm_server.domain.texts import no_login

TAKEN = (
    *(
        "Renée",
        "müller-1",
        "łukasz",
        "Ọ̀ṣun",
        "\u0131ş\u0131k",
        "o'neill+1",
        "ka\u02bbiulani",
    ),
    *("иван@example.com", "Анна.Смирнова", "\u043e\u0441\u0430", "bot_тест", "ё.ж"),
    *("Ωμέγα-1@example.com", "ψάρι", "Հայկ@example.com", "ᏣᎳᎩ-1", "محمد", "हिन्दी"),
    *("山田太郎", "user山田", "ラーメン2@example.com", "佐々木", "김철수bot"),
)
LOOK_ALIKES = (
    *("\u0430lice", "\u0441\u043e\u0440\u0435@example.com", "test-\u04301"),
    *("bot_\u0430", "user.\u043e.neil", "bot \u0401", "\u0430\u0307lice"),
    *("alic\u03b5", "bot-\u0391", "bot-\u03cc", "\u0585livia", "ali\u0627"),
    *("\u13aalice", "bot-\u13aa", "bot_\ua4ee", "bot-\u2c9f"),
    *("\u0251lice", "\u1d00lice", "\u0261o", "a\u01c0ice"),
    *("l\u0307ogin", "i\u0307da", "o\u0338le", "bo\u0301\u0301t"),
    *("\uff41lice", "\u217cogin", "\U0001d41alice"),
)


def test_people_s_names_in_many_scripts_are_logins() -> None:
    assert {it: no_login(it) for it in TAKEN} == dict.fromkeys(TAKEN)


def test_what_looks_like_another_login_is_none() -> None:
    assert [it for it in LOOK_ALIKES if no_login(it) is None] == []
