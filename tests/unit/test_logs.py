"""The log: what it says of a command that fails, who sees it, and that it can neither tell a secret nor stop a run."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vbench import load, notebook
from vbench.bundle.verify import examine
from vbench.cli import run_log
from vbench.cli.run_log import LOG, logged_into
from vbench.errors import CommandFailed
from vbench.hosts.local import LocalHost

Call = Callable[..., tuple[int, str, str]]
FAILING = ["sh", "-c", 'echo "it\'s" broken >&2; exit 7']
vbench = logging.getLogger("vbench")


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "vbench")
    return caplog


def test_a_failed_command_names_host_code_and_time_and_can_be_pasted(debug: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CommandFailed):
        LocalHost("somewhere").run(FAILING)
    (event,) = debug.messages
    line, said = event.split("\n", 1)
    match = re.fullmatch(r"somewhere: exit code 7 after \d+\.\d ms: (.+)", line)
    assert match
    assert said == "    | it's broken"
    pasted = subprocess.run(["sh", "-c", match[1]], capture_output=True, text=True, check=False)
    assert (pasted.returncode, pasted.stderr) == (7, "it's broken\n")


def test_input_is_logged_by_its_length(debug: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    host = LocalHost()
    host.run(["cat"], input=b"the secret key")
    host.put(b"the secret key", str(tmp_path / "key"))
    assert debug.messages[0].endswith(": cat  # with 14 bytes of input")
    assert debug.messages[1].endswith(f"put 14 bytes into {tmp_path}/key, mode 644")
    assert "secret" not in debug.text


def test_a_command_that_is_tried_over_and_over_is_logged_once(debug: pytest.LogCaptureFixture) -> None:
    host = LocalHost()
    for _ in range(5):
        host.run(FAILING, check=False)
    host.run(["true"])
    assert [event.partition(" after")[0] for event in debug.messages] == [
        "local: exit code 7",
        "local: the same, 4 more times",
        "local: exit code 0",
    ]


def test_a_process_that_dies_tells_so(debug: pytest.LogCaptureFixture) -> None:
    with LocalHost().spawn(FAILING) as process:
        process.wait(10)
    with LocalHost().spawn(["sleep", "100"]) as other:
        pass
    started, died, _, ended = debug.messages
    assert re.fullmatch(rf"local: process {process.pid} started: sh -c .*", started)
    assert re.match(rf"local: process {process.pid} had already ended: code 7, after \d", died)
    assert died.endswith("\n    | it's broken")
    assert re.match(rf"local: process {other.pid} was ended: code 143, after \d", ended)


# --- who sees it


@pytest.mark.parametrize("words", [["--debug", "exec"], ["exec", "--debug"]], ids=" ".join)
def test_debug_shows_commands_on_standard_error(
    call: Call, whole: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("VBENCH_CACHE", str(whole))
    argv = ["local", "--", "sh", "-c", f"echo {words[0]} >&2; exit 7"]
    code, out, err = call(*words, *argv)
    assert (code, out) == (7, "")
    assert re.search(
        r"^\d\d:\d\d:\d\d\.\d{3} DEBUG vbench\.\S+: local: exit code 7 after .* ms: sh -c ", err, re.M
    )
    assert err.endswith(f"{words[0]}\n")
    for quiet in (["exec"], ["-v", "exec"]):
        assert call(*quiet, *argv) == (7, "", f"{words[0]}\n")


def test_debug_says_where_an_error_was_raised(call: Call) -> None:
    code, _, err = call("--debug", "exec", "local/nosuch", "--", "true")
    assert code == 2
    assert "Traceback" in err
    assert "make_layer" in err
    assert "/typer/" not in err
    assert err.endswith("vbench: there is no layer 'nosuch'\n" + err.splitlines(keepends=True)[-1])
    assert "Traceback" not in call("-v", "exec", "nosuch", "--", "true")[2]


# --- the log of a run


def test_a_run_is_logged_in_its_bundle_and_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for code in (7, 8):
        with pytest.raises(CommandFailed), logged_into(tmp_path):
            LocalHost().run(["sh", "-c", f"exit {code}"])
    LocalHost().run(["false"], check=False)
    text = (tmp_path / LOG).read_text()
    assert "DEBUG MainThread vbench.hosts.trace: local: exit code 7 after " in text
    assert "DEBUG MainThread vbench.hosts.trace: local: exit code 8 after " in text
    assert text.count("the run ended early\nTraceback") == 2
    assert "false" not in text
    assert not [each for each in vbench.handlers if not isinstance(each, logging.NullHandler)]


def test_a_bundle_with_a_log_is_whole(tmp_path: Path) -> None:
    bundle = shutil.copytree(notebook.busy_machine(), tmp_path / "bundle")
    with logged_into(bundle):
        assert examine(bundle) == []
    assert (bundle / LOG).stat().st_size > 0
    assert examine(bundle) == []
    assert len(load(bundle).overheads()) > 0


def test_what_a_guest_says_commands_no_terminal_of_who_reads_it(tmp_path: Path) -> None:
    with logged_into(tmp_path):
        LocalHost().run(["sh", "-c", r"printf '\033]0;title\007' >&2; exit 1"], check=False)
    assert not {*(tmp_path / LOG).read_text()} & {"\x1b", "\x07"}


def test_a_link_in_its_place_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / LOG).symlink_to(tmp_path / "theirs")
    with logged_into(tmp_path):
        LocalHost().run(["true"])
    assert (tmp_path / "theirs").read_text() == "precious"
    assert "it is a symbolic link" in capsys.readouterr().err


def test_a_full_disk_does_not_stop_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object) -> object:
        return open("/dev/full", "w")  # noqa: PTH123

    monkeypatch.setattr(run_log._File, "_open", full)
    with logged_into(tmp_path):
        assert LocalHost().run(["true"]).code == 0
    assert capsys.readouterr() == ("", "")


def test_a_long_log_loses_its_oldest_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "_SIZE", 10_000)
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / f"{LOG}.1").symlink_to(tmp_path / "theirs")
    with logged_into(tmp_path):
        for number in range(1000):
            vbench.info("event %d", number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs", LOG, f"{LOG}.1"]
    assert all((tmp_path / name).stat().st_size <= 10_000 for name in (LOG, f"{LOG}.1"))
    assert "event 999" in (tmp_path / LOG).read_text()
    assert (tmp_path / "theirs").read_text() == "precious"
