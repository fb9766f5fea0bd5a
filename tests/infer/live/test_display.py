import io

from rich.console import Console

from infer.live.display import Display, clock_time, level_row, load_row
from infer.live.meter import Level, Load
from tests.support.live import Clock


def test_a_terminal_shows_rows_ten_times_a_second() -> None:
    clock, asked = Clock(), []
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)

    def rows() -> list[tuple[str, str]]:
        asked.append(clock.now)
        return [("rate", "3 kbps"), ("time", clock_time(clock.now))]

    with Display(rows, console, clock) as display:
        for _ in range(200):
            clock.sleep(0.01)
            display.tick()
    assert 15 <= len(asked) <= 20
    assert "3 kbps" in file.getvalue()


def test_elsewhere_there_is_a_line_now_and_then() -> None:
    clock = Clock()
    file = io.StringIO()
    console = Console(file=file, width=20)
    with Display(lambda: [("rate", "3 kbps"), ("out", "x" * 50)], console, clock) as display:
        display.say("in.wav to out.wav")
        for _ in range(250):
            clock.sleep(0.1)
            display.tick()
    assert file.getvalue().splitlines() == [
        "in.wav to out.wav",
        *2 * [f"rate 3 kbps, out {'x' * 50}"],
    ]


def test_texts() -> None:
    assert clock_time(62.9) == "01:02"
    assert clock_time(3 * 3600 + 5) == "3:00:05"
    assert level_row("in", Level(8000))[1].endswith(" silence")
    load = Load(0.02)
    load.push(0.002)
    assert load_row(load) == ("load", "10% of the time, 10% at most")
