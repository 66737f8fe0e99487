"""What reaches the terminal, whoever wrote it; and how long a stranger's pattern may take."""

from __future__ import annotations

import json
import time

import pytest

from vbench.cli.console import ConsoleProgress, say, show_table, warn
from vbench.errors import VbenchError, brief
from vbench.harness.events import Began
from vbench.workload import extract
from vbench.workload.extract import Output, Reading, search
from vbench.workload.model import Server

EVIL = "a\x1b]0;title\x07b\x9b31m\x00[red]c\u202ed\ud800e\r"


def test_nothing_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    warn(EVIL)
    show_table([{"x": EVIL}], json=False)
    show_table([{"x": EVIL}], json=True)
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not {*text} & {*"\x1b\x07\x9b\x00\u202e\ud800\r"}
    assert r"a\x1b]0;title\x07b\x9b31m\x00[red]c\u202ed\ud800e\r" in out
    assert json.loads(out[out.index("[\n") :])[0]["x"] == EVIL


def test_a_pattern_that_takes_ages_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "PATIENCE_S", 0.5)
    begin = time.monotonic()
    with pytest.raises(VbenchError, match=r"did not finish on the output within 0\.5 s"):
        search(r"^(a{1,30}){1,30}$", "a" * 60 + "b")
    assert time.monotonic() - begin < 60
    assert search(r"(\d+) (\w)?", "x 12 ") is None
    assert search(r"^(\d+)$", "x\n12\n") == ("12",)


@pytest.mark.parametrize("output", [b"\n" * 5_000_000, b" " * 5_000_000 + b"x"])
def test_white_space_is_no_json_and_soon(output: bytes) -> None:
    begin = time.monotonic()
    with pytest.raises(VbenchError, match="not JSON"):
        Reading(json="a").value(Output(output))
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("text", ["0", "65536", "99999999999999999999", "\u0663\u0663"])
def test_a_port_that_is_none(text: str) -> None:
    server = Server(command=("@x",), ready=r"port (\w+)")
    with pytest.raises(VbenchError, match="is not a port"):
        server.port(f"port {text}")


def test_brief() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10_000, 10**5000, deep, {"a": ["b" * 100] * 100}, float("nan")):
        assert 0 < len(brief(value)) <= 80


def test_progress_without_a_terminal_is_a_line_whenever_there_is_news(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ConsoleProgress() as progress:
        progress.doing(Began(stage="opening", stack="local/uml"), 0, 20, None)
        for name in ("cpu-int", "os-nullcall"):
            progress.doing(Began(stage="calibrating", stack="local/uml", workload=name), 0, 20, None)
        for done in range(20):
            now = Began(stage="measuring", stack="local/uml", workload="cpu-int", block=done // 10)
            progress.doing(now, done, 20, 20.0 - done + 60)
        progress.say("local/kvm is left out")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "opening local/uml (0/20)",
        "calibrating local/uml (0/20)",
        "block 1 (0/20) about 1 min 20 s left",
        "block 2 (10/20) about 1 min 10 s left",
        "local/kvm is left out",
    ]
