"""Progress: plain lines (golden), JSON, silence, and the terminal."""

import base64
import io
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from kpy.cli.failure import harmless
from kpy.cli.progress import PlainProgress, Silence, choose, human
from kpy.cli.progress_json import JsonProgress
from kpy.cli.progress_tty import LiveProgress
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError
from kpy.events import Event, StepFinished, StepLog, StepProgress, StepStarted, Warned


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plain(*script: Event | float, on_terminal: bool = False) -> str:
    stream, clock = io.BytesIO(), Clock()
    with PlainProgress(stream, clock, on_terminal=on_terminal) as progress:
        for item in script:
            if isinstance(item, float):
                clock.now += item
            else:
                progress(item)
    return stream.getvalue().decode("utf-8", "surrogateescape")


def test_plain_is_buildkits() -> None:
    assert plain(
        StepStarted("a", "[1/2] FROM base"),
        0.5,
        StepFinished("a", "cached"),
        StepStarted("b", "[2/2] RUN make"),
        0.123,
        StepLog("b", b"one\ntw"),
        StepLog("b", b"o\nthree"),
        1.1,
        StepFinished("b", "done"),
    ) == (
        "#1 [1/2] FROM base\n"
        "#1 CACHED\n"
        "\n"
        "#2 [2/2] RUN make\n"
        "#2 0.123 one\n"
        "#2 0.123 two\n"
        "#2 1.223 three\n"
        "#2 DONE 1.2s\n"
    )  # fmt: skip


def test_plain_names_a_step_again_when_it_goes_on() -> None:
    assert plain(
        StepStarted("a", "[a] RUN x"), StepStarted("b", "[b] RUN y"), StepLog("a", b"1\n"), StepLog("a", b"2\n"), StepLog("b", b"3\n")
    ) == "#1 [a] RUN x\n\n#2 [b] RUN y\n\n#1 [a] RUN x\n#1 0.000 1\n#1 0.000 2\n\n#2 [b] RUN y\n#2 0.000 3\n"  # fmt: skip


def test_plain_counts_bytes_now_and_then_and_at_the_end() -> None:
    label = "sha256:abc"
    text = plain(
        StepStarted("a", "pull"),
        *(item for n in range(1, 12) for item in (StepProgress("a", label, n * 1_000_000, 20_000_000), 1.0)),
        StepProgress("a", label, 20_000_000, 20_000_000),
        StepProgress("a", label, 20_000_000, 20_000_000),
        StepFinished("a", "done"),
    )
    assert text == (
        "#1 pull\n"
        "#1 sha256:abc 6.0MB / 20.0MB 5.0s\n"
        "#1 sha256:abc 11.0MB / 20.0MB 10.0s\n"
        "#1 sha256:abc 20.0MB / 20.0MB 11.0s done\n"
        "#1 DONE 11.0s\n"
    )


def test_plain_failure_and_warnings() -> None:
    warning = Warned("the clock is wrong", "set it")
    assert plain(StepStarted("a", "x"), warning, warning, StepFinished("a", "failed", "exit\ncode: 1")) == (
        "#1 x\n\nwarning: the clock is wrong\nhint: set it\n#1 x\n#1 ERROR: exit code: 1\n"
    )


def test_plain_passes_bytes_and_keeps_the_last_state_of_a_bar() -> None:
    text = plain(StepStarted("a", "x"), StepLog("a", b"\xff\xfe\n10%\r50%\r100%\r\n"))
    assert text == "#1 x\n#1 0.000 \udcff\udcfe\n#1 0.000 100%\n"


HOSTILE = "a\x1b[2Jb\x1b]0;t\x07c\x9b1md\x7fe\u202ef\x08g"
NAMED = StepStarted("a", f"[1/1] RUN {HOSTILE}\r\n#99 DONE\u2028error: x" + "\udc9b")
CLEAN = "[1/1] RUN abc1mdefg #99 DONE error: x\ufffd"


@pytest.mark.parametrize("on_terminal", [True, False])
def test_plain_names_are_harmless_everywhere(on_terminal: bool) -> None:
    text = plain(
        NAMED,
        StepProgress("a", HOSTILE, 5, 5),
        StepProgress("a", HOSTILE, 5, 5),
        Warned(HOSTILE, HOSTILE),
        StepFinished("a", "failed", HOSTILE + "\r#99 DONE"),
        StepFinished(HOSTILE, "done"),
        on_terminal=on_terminal,
    )
    assert text == (
        f"#1 {CLEAN}\n#1 abc1mdefg 5B / 5B 0.0s done\n"
        "\nwarning: abc1mdefg\nhint: abc1mdefg\n"
        f"#1 {CLEAN}\n#1 ERROR: abc1mdefg #99 DONE\n"
        "\n#2 abc1mdefg\n#2 DONE 0.0s\n"
    )


def test_plain_output_is_harmless_on_a_terminal_only() -> None:
    output = b"\x1b[31mred\x1b[0m \xc2\x9b2J \x9b2J \xe2\x80\xaeevil\x7f \xe9 tab\there \xc3\xa9\xe2\x9c\x93\nrest\x1bc"
    script = (StepStarted("a", "x"), StepLog("a", output))
    assert plain(*script, on_terminal=True).encode("utf-8", "surrogateescape") == (
        b"#1 x\n#1 0.000 red 2J \xef\xbf\xbd2J evil \xe9 tab\there \xc3\xa9\xe2\x9c\x93\n#1 0.000 rest\n"
    )
    kept = plain(*script).encode("utf-8", "surrogateescape")
    assert kept == b"#1 x\n#1 0.000 " + output.replace(b"\n", b"\n#1 0.000 ") + b"\n"


def test_plain_is_told_that_it_writes_to_a_terminal(make_terminal: Callable[..., Terminal]) -> None:
    for tty, shown in ((True, b"#1 0.000 ab"), (False, b"#1 0.000 a\x1b[2Jb")):
        terminal = make_terminal(stderr_is_terminal=tty)
        with choose("plain", terminal) as progress:
            progress(StepStarted("a", "x"))
            progress(StepLog("a", b"a\x1b[2Jb\n"))
        lines = terminal.stderr.getvalue().split(b"\n")  # type: ignore[attr-defined]
        assert re.sub(rb"\d\.\d{3}", b"0.000", lines[1]) == shown


def test_plain_shows_a_line_that_does_not_end() -> None:
    text = plain(StepStarted("a", "x"), StepLog("a", b"y" * 200_000), StepLog("a", b"end"))
    assert text.count("y") == 200_000
    assert text.endswith("#1 0.000 end\n")


class Broken(io.BytesIO):
    def write(self, data: Any, /) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("kind", [PlainProgress, JsonProgress])
def test_a_reader_that_left_ends_the_showing_not_the_build(kind: Callable[[Any], Any]) -> None:
    with kind(Broken()) as progress:
        progress(StepStarted("a", "x"))
        progress(StepFinished("a", "done"))


def test_events_of_unknown_steps_do_not_raise() -> None:
    assert "#1 DONE" in plain(StepFinished("a", "done"))
    for progress in (JsonProgress(io.BytesIO()), Silence()):
        with progress:
            progress(StepFinished("a", "done"))


def test_threads_do_not_mix_lines() -> None:
    stream = io.BytesIO()
    with PlainProgress(stream) as progress:

        def work(name: str) -> None:
            progress(StepStarted(name, name))
            for _ in range(200):
                progress(StepLog(name, b"x" * 50 + b"\n"))
            progress(StepFinished(name, "done"))

        threads = [threading.Thread(target=work, args=(f"s{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = stream.getvalue().decode().splitlines()
    assert sum(line.endswith("x" * 50) for line in lines) == 800
    assert sum(" DONE " in line for line in lines) == 4


def test_json_is_buildkits_rawjson() -> None:
    stream = io.BytesIO()
    with JsonProgress(stream, lambda: 1_600_000_000.5) as progress:
        progress(StepStarted("a", "[1/1] RUN x"))
        progress(StepLog("a", b"\xff\n"))
        progress(StepProgress("a", "blob", 5, 10))
        progress(StepFinished("a", "failed", "no"))
        progress(Warned("w", "h"))
        progress(StepStarted("b", "c"))
        progress(StepFinished("b", "cached"))
    started, log, status, failed, warned, _, cached = map(json.loads, stream.getvalue().splitlines())
    vertex = started["vertexes"][0]
    when = "2020-09-13T12:26:40.500000Z"
    assert vertex["name"] == "[1/1] RUN x"
    assert vertex["started"] == when
    assert log["logs"] == [
        {
            "vertex": vertex["digest"],
            "stream": 1,
            "data": base64.b64encode(b"\xff\n").decode(),
            "timestamp": when,
        }
    ]
    assert (status["statuses"][0]["current"], status["statuses"][0]["total"]) == (5, 10)
    assert failed["vertexes"] == [{**vertex, "completed": when, "error": "no"}]
    assert base64.b64decode(warned["warnings"][0]["short"]) == b"w"
    assert cached["vertexes"][0]["cached"] is True


def test_json_says_all_and_shows_a_terminal_nothing_to_obey() -> None:
    stream = io.BytesIO()
    with JsonProgress(stream) as progress:
        progress(NAMED)
        progress(StepProgress("a", HOSTILE, 1, 2))
        progress(StepLog("a", HOSTILE.encode() + b"\x9b"))
        progress(Warned(HOSTILE, HOSTILE))
        progress(StepFinished("a", "failed", "\\" + HOSTILE))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert all(harmless(line.decode()) == line.decode() for line in lines)
    named, status, log, warned, failed = map(json.loads, lines)
    assert named["vertexes"][0]["name"] == NAMED.name.replace("\udc9b", "\ufffd")
    assert status["statuses"][0]["id"] == HOSTILE
    assert base64.b64decode(log["logs"][0]["data"]) == HOSTILE.encode() + b"\x9b"
    assert base64.b64decode(warned["warnings"][0]["short"]) == HOSTILE.encode()
    assert failed["vertexes"][0]["error"] == "\\" + HOSTILE


def live(color: bool = False) -> tuple[LiveProgress, io.StringIO, Clock]:
    text, clock = io.StringIO(), Clock()
    console = Console(
        file=text, force_terminal=True, width=80, height=24, no_color=not color, highlight=False
    )
    return LiveProgress(io.BytesIO(), color=color, console=console, clock=clock), text, clock


def test_a_terminal_shows_finished_steps_once_and_running_ones_live() -> None:
    progress, text, clock = live()
    with progress:
        progress(StepStarted("a", "[1/2] FROM base"))
        progress(StepProgress("a", "sha256:0123", 3_000_000, 6_000_000))
        console = progress._console
        with console.capture() as drawn:
            console.print(progress._draw())
        assert "[1/2] FROM base" in drawn.get()
        assert "3.0MB / 6.0MB" in drawn.get()
        clock.now += 2
        progress(StepFinished("a", "done"))
        progress(StepStarted("b", "[2/2] RUN x"))
        progress(
            StepLog("b", b"".join(b"line %d\n" % n for n in range(20)) + b"bar 1\rbar 2\n\x1b[2Jclear\xff\n")
        )
        with console.capture() as drawn:
            console.print(progress._draw())
        assert "line 19" in drawn.get()
        assert "line 1\n" not in drawn.get()
        assert "bar 2" in drawn.get()
        assert "bar 1" not in drawn.get()
        assert "\x1b[2J" not in drawn.get()
        progress(StepFinished("b", "failed", "exit code: 1"))
        progress(Warned("careful", "or not"))
        progress(Warned("careful", "or not"))
    shown = text.getvalue()
    assert "[1/2] FROM base  2.0s (3.0MB)" in shown.replace("\x1b[2m", "").replace("\x1b[0m", "").replace(
        "\x1b[34m", ""
    )
    assert "ERROR" in shown
    assert shown.count("careful") == 1
    assert shown.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in shown  # the cursor is back


def test_no_thread_runs_before_the_first_event() -> None:
    before = set(threading.enumerate())
    progress, _, _ = live()
    with progress:
        assert set(threading.enumerate()) <= before
        progress(StepStarted("a", "x"))
        (drawing,) = set(threading.enumerate()) - before
    progress(StepFinished("a", "done"))  # too late: dropped
    drawing.join(10)
    assert not drawing.is_alive()
    assert set(threading.enumerate()) <= before


def test_markup_in_names_is_text() -> None:
    progress, text, _ = live()
    with progress:
        progress(StepStarted("a", "[bold]RUN [/] [2/3]"))
        progress(StepFinished("a", "cached"))
    assert "[bold]RUN [/] [2/3]" in text.getvalue()


def test_a_terminal_is_given_nothing_of_a_stranger_to_obey() -> None:
    progress, text, _ = live()
    with progress:
        progress(NAMED)
        progress(StepProgress("a", HOSTILE, 1, 2))
        progress(StepLog("a", HOSTILE.encode() + b" \x9b2J\nrest " + HOSTILE.encode()))
        console = progress._console
        with console.capture() as drawn:
            console.print(progress._draw())
        progress(Warned(HOSTILE, HOSTILE))
        progress(StepFinished("a", "failed", HOSTILE))
    for shown in (drawn.get(), text.getvalue()):
        assert not re.search(r"\x1b\[2J|\x1b\]|[\x07\x08\x7f-\x9f\u2028-\u202e]", shown)
    assert CLEAN in text.getvalue()


def test_many_threads_and_redraws_do_not_block_each_other() -> None:
    progress, _, _ = live()
    with progress:

        def work(name: str) -> None:
            for n in range(50):
                progress(StepStarted(f"{name}{n}", name))
                progress(StepLog(f"{name}{n}", b"x\n"))
                progress(StepFinished(f"{name}{n}", "done"))

        threads = [threading.Thread(target=work, args=(f"s{n}",), daemon=True) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


def test_the_stream_stays_open() -> None:
    stream = io.BytesIO()
    with LiveProgress(stream, color=False) as progress:
        progress(StepStarted("a", "x"))
        progress(StepFinished("a", "done"))
    stream.write(b"still open")
    assert b"=> x" in stream.getvalue().replace(b"\x1b[0m", b"")


@pytest.mark.parametrize(
    ("mode", "tty", "variables", "kind"),
    [
        ("auto", False, {}, PlainProgress),
        ("auto", True, {"TERM": "xterm"}, LiveProgress),
        ("auto", True, {"TERM": "dumb"}, PlainProgress),
        ("auto", True, {}, PlainProgress),
        ("tty", True, {"TERM": "xterm", "NO_COLOR": "1"}, LiveProgress),
        ("plain", True, {"TERM": "xterm"}, PlainProgress),
        ("rawjson", True, {}, JsonProgress),
        ("quiet", True, {}, Silence),
        ("none", True, {}, Silence),
    ],
)
def test_choice(
    make_terminal: Callable[..., Terminal], mode: Any, tty: bool, variables: dict[str, str], kind: type
) -> None:
    with choose(mode, make_terminal(stderr_is_terminal=tty, variables=variables)) as progress:
        assert type(progress) is kind


def test_tty_without_a_terminal(terminal: Terminal) -> None:
    with pytest.raises(UsageError, match="not a terminal"):
        choose("tty", terminal)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0kB"),
        (1_234_567, "1.2MB"),
        (999_999, "1.0MB"),
        (5 * 10**15, "5000.0TB"),
    ],
)
def test_human_sizes(size: int, text: str) -> None:
    assert human(size) == text
