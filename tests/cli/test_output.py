"""What the commands share: words for durations, progress, and batches."""

from __future__ import annotations

import pytest

from botfarm_server.cli.importing import paced
from botfarm_server.cli.output import in_words
from botfarm_server.cli.progress import Pace, progress
from botfarm_server.domain.texts import printable


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "-"),
        (-1, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (200, "3m20s"),
        (3_600, "1h00m"),
        (7_530, "2h05m"),
        (86_400 * 3 + 4 * 3_600, "3d04h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(
    seconds: float | None, told: str
) -> None:
    assert in_words(seconds) == told


def test_control_characters_are_spelled_out() -> None:
    assert printable("a\nb\tc\x1b[0m\x9bé") == "a\nb\\tc\\x1b[0m\\x9bé"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    clock = Clock()
    pace = Pace(10_000, clock)
    assert str(pace) == "0/10,000"
    assert pace.seconds_left is None
    for _ in range(60):
        clock.now += 1
        pace.advance(100)
    assert str(pace) == "6,000/10,000, 100/s, 40s left"
    for _ in range(60):
        clock.now += 1
        pace.advance(4)
    assert pace.rate == pytest.approx(4)
    assert str(pace) == "6,240/10,000, 4.0/s, 15m40s left"
    pace.advance(3_760)
    assert str(pace).startswith("10,000/10,000, ")
    assert "left" not in str(pace)


def test_batches_take_about_two_seconds_each() -> None:
    clock = Clock()
    sizes = []
    for batch in paced(range(1_000), clock):
        sizes.append(len(batch))
        clock.now += len(batch) * 0.1
    assert sum(sizes) == 1_000
    assert sizes[0] == 10
    assert set(sizes[2:-1]) == {20}


def test_batches_grow_at_most_twofold_and_to_the_servers_limit() -> None:
    sizes = [len(batch) for batch in paced(range(3_000), Clock())]
    assert sizes == [10, 20, 40, 80, 160, 320, 500, 500, 500, 500, 370]


def test_a_slow_server_gets_small_batches() -> None:
    clock = Clock()
    sizes = []
    for batch in paced(range(30), clock):
        sizes.append(len(batch))
        clock.now += len(batch) * 5
    assert sizes == [10, 5, 5, 5, 5]


def test_progress_on_a_terminal_is_a_bar_and_elsewhere_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress("imported", 4) as advance:
        advance(3)
        advance(1)
    assert capsys.readouterr().err.startswith("imported 4/4")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("imported", 4) as advance:
        advance(3)
        advance(1)
    told = capsys.readouterr().err
    assert "━" in told
    assert "4/4" in told
