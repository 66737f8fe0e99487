"""What every host must do alike, whatever carries its commands."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from vbench.errors import CommandFailed, CommandTimeout, HostError
from vbench.hosts.base import Connection, Host, Process

NASTY = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "''\"\"",
    "$HOME",
    "$(id)",
    "`id`",
    "\\",
    "\\n",
    "a\nb",
    "\n",
    "tab\t",
    "*",
    "?",
    "[a]",
    "~",
    "-n",
    "--",
    "-",
    "!x",
    "#",
    ";",
    "&",
    "|",
    "<>",
    "A=b",
    "%s",
    "é",
    "日本",
    "\x01\x7f",
    "\udcff\udcfe",
]


def alive(host: Host, pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    state = host.run(["sed", "s/.*) \\(.\\).*/\\1/", f"/proc/{pid}/stat"], check=False)
    return state.code == 0 and state.text not in ("Z", "X")


def dies(host: Host, pid: int) -> bool:
    """Whether a process is gone soon; an orphan stays visible until process 1 has reaped it."""
    end = time.monotonic() + 5
    while alive(host, pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def said(process: Process, text: str) -> str:
    """Wait for a process to say something; returns all that it has said."""
    end = time.monotonic() + 20
    while text not in process.tail():
        assert time.monotonic() < end, process.tail()
        time.sleep(0.02)
    return process.tail()


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 255])
def test_exit_code(host: Host, code: int) -> None:
    result = host.run(["sh", "-c", f"exit {code}"], check=False)
    assert (result.code, result.stdout, result.stderr) == (code, b"", b"")


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "KILL", "SEGV", "PIPE", "TERM", "USR1"])
def test_signal(host: Host, name: str) -> None:
    result = host.run(["sh", "-c", f"ulimit -c 0; kill -{name} $$; sleep 5"], check=False)
    assert (result.code, result.signal) == (128 + signal.Signals[f"SIG{name}"], f"SIG{name}")
    assert result.stderr == b""


def test_signal_to_the_whole_group(host: Host) -> None:
    for name in ("HUP", "INT", "TERM"):
        assert host.run(["sh", "-c", f"kill -{name} 0; sleep 5"], check=False).signal == f"SIG{name}"
    assert host.run(["sh", "-c", "kill -KILL 0; sleep 5"], check=False).signal == "SIGKILL"
    assert host.run(["echo", "still here"]).text == "still here"


def test_dispositions_are_the_default(host: Host) -> None:
    status = host.run(["cat", "/proc/self/status"]).text
    ignored = int(status.split("SigIgn:")[1].split()[0], 16)
    assert ignored & 0xFFFF == 0


def test_streams_are_apart_and_exact(host: Host) -> None:
    result = host.run(["sh", "-c", "printf 'out\\n\\nmore'; printf '\\nerr\\n\\nmore' >&2"])
    assert (result.stdout, result.stderr) == (b"out\n\nmore", b"\nerr\n\nmore")
    assert result.elapsed > 0


@pytest.mark.parametrize("argument", NASTY)
def test_argument(host: Host, argument: str) -> None:
    # argument twice, so that one that printf takes for an option would show
    result = host.run(["printf", "%s\\0", argument, "x", argument])
    assert result.stdout == b"".join(os.fsencode(part) + b"\0" for part in (argument, "x", argument))


def test_all_arguments_at_once(host: Host) -> None:
    result = host.run(["printf", "%s\\0", *NASTY])
    assert result.stdout == b"".join(os.fsencode(part) + b"\0" for part in NASTY)


def test_no_shell_in_between(host: Host, scratch: str) -> None:
    host.put(b"#!/bin/sh\necho mine: $1\n", f"{scratch}/A=b c", 0o755)
    assert host.run([f"{scratch}/A=b c", "$x"]).text == "mine: $x"
    for builtin in ("exit", "eval", "exec", ":", "-x", "if", "A=b"):
        assert host.run([builtin, "0"], check=False).code == 127, builtin


@pytest.mark.parametrize("argv", [[], "echo hi", ["echo", "a\0b"]])
def test_impossible_argv(host: Host, argv: list[str]) -> None:
    with pytest.raises(HostError):
        host.run(argv)


def test_stdin_is_empty(host: Host) -> None:
    assert host.run(["cat"], timeout=20).stdout == b""
    assert host.run(["cat"], timeout=20, input=b"").stdout == b""


def test_stdin_binary(host: Host) -> None:
    data = os.urandom(1 << 20)
    assert host.run(["cat"], input=data).stdout == data


def test_stdin_unread(host: Host) -> None:
    assert host.run(["true"], input=bytes(4 << 20), timeout=20).code == 0


def test_much_output_on_both_streams_at_once(host: Host) -> None:
    script = "head -c 8388608 /dev/zero >&2 & head -c 8388608 /dev/zero | tr '\\0' x; wait"
    result = host.run(["sh", "-c", script])
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(b"x" * 8388608).digest()
    assert result.stderr == bytes(8388608)


def test_too_much_output(host: Host) -> None:
    with pytest.raises(HostError, match="64 MiB"):
        host.run(["sh", "-c", "exec cat /dev/zero"], timeout=120)
    assert host.run(["true"]).code == 0


def test_timeout_kills_grandchildren(host: Host, scratch: str) -> None:
    script = f"sleep 1000 & echo $! >{scratch}/child; sh -c 'trap : TERM; sleep 1000; sleep 1000'"
    start = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"1\.5 s"):
        host.run(["sh", "-c", script], timeout=1.5)
    assert time.monotonic() - start < 15
    assert dies(host, int(host.get(f"{scratch}/child")))


def test_interrupt_kills(host: Host, scratch: str) -> None:
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        host.run(["sh", "-c", f"sleep 1000 & echo $! >{scratch}/child; wait"])
    timer.join()
    assert dies(host, int(host.get(f"{scratch}/child")))


def test_leftovers_are_killed(host: Host) -> None:
    start = time.monotonic()
    result = host.run(["sh", "-c", "sleep 1000 & echo $!; exit 3"], check=False)
    assert result.code == 3
    assert dies(host, int(result.text))
    assert time.monotonic() - start < 10


def test_leftovers_that_write_are_killed(host: Host) -> None:
    result = host.run(["sh", "-c", "while :; do echo more; done & sleep 0.3"], timeout=30)
    assert (result.code, set(result.stdout.split(b"\n")[:-1])) == (0, {b"more"})


def test_daemon_holding_the_streams_does_not_delay(host: Host) -> None:
    start = time.monotonic()
    result = host.run(["sh", "-c", "setsid sh -c 'echo $$; sleep 25' & sleep 0.5; echo done"])
    pid, done = result.text.split()
    assert time.monotonic() - start < 15
    assert (done, alive(host, int(pid))) == ("done", True)
    host.run(["sh", "-c", f"kill -KILL -{pid}"])


@pytest.mark.parametrize("name", ["vbench-no-such-command", "/vbench/no/such/command", "no such\ncommand"])
def test_command_not_found(host: Host, name: str) -> None:
    result = host.run([name, "x"], check=False)
    assert result.code == 127
    assert name.encode() in result.stderr
    assert not result.stderr.startswith(b"set")


def test_command_not_executable(host: Host) -> None:
    assert host.run(["/etc/passwd"], check=False).code == 126


def test_check_raises(host: Host) -> None:
    with pytest.raises(CommandFailed) as caught:
        host.run(["sh", "-c", "echo first >&2; echo 'last words' >&2; exit 7"])
    assert (caught.value.code, caught.value.stderr) == (7, "first\nlast words\n")
    assert all(part in caught.value.message for part in (host.name, "sh -c", "exit code 7"))
    assert caught.value.message.endswith(": last words")
    with pytest.raises(CommandFailed, match="SIGKILL"):
        host.run(["sh", "-c", "kill -KILL $$"])


def test_spawn_runs_and_is_ended(host: Host) -> None:
    with host.spawn(["sh", "-c", "sleep 1000 & echo child $! ready; wait"]) as process:
        child = int(said(process, "ready").split("child ")[1].split()[0])
        assert process.poll() is None
        assert alive(host, process.pid)
        with pytest.raises(CommandTimeout):
            process.wait(0.1)
    assert dies(host, process.pid)
    assert dies(host, child)
    assert process.poll() == 143
    process.kill()


def test_spawn_ends_by_itself(host: Host) -> None:
    with host.spawn(["sh", "-c", "echo out; echo err >&2; exit 5"]) as process:
        assert process.wait(20) == 5
        assert process.poll() == 5
        assert sorted(process.tail().split()) == ["err", "out"]
        process.kill()
    assert process.poll() == 5


def test_spawn_kill(host: Host) -> None:
    with host.spawn(["sleep", "1000"]) as process:
        process.kill()
        assert process.wait(20) == 137
    with host.spawn(["sleep", "1000"]) as process:
        process.kill(signal.SIGTERM)
        assert process.wait(20) == 143


def test_spawn_that_ignores_term(host: Host) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 1000; done"
    with host.spawn(["sh", "-c", script]) as process:
        said(process, "ready")
    assert process.poll() == 137
    assert dies(host, process.pid)


def test_spawn_is_ended_by_an_exception(host: Host) -> None:
    with pytest.raises(RuntimeError), host.spawn(["sleep", "1000"]) as process:
        raise RuntimeError
    assert dies(host, process.pid)


def test_spawn_not_found(host: Host) -> None:
    with host.spawn(["vbench-no-such-command"]) as process:
        assert process.wait(20) == 127
        assert "vbench-no-such-command" in process.tail()


def test_tail_keeps_the_end(host: Host) -> None:
    with host.spawn(
        ["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end; sleep 1000"]
    ) as process:
        tail = said(process, "end")
        assert len(tail) == 64 << 10
        assert tail.endswith("xxx\nend\n")


def test_process_usage(host: Host) -> None:
    with host.spawn(["sh", "-c", "(while :; do :; done) & wait"]) as process:
        if process.usage() is None:
            pytest.skip(f"{host.name} cannot tell")
        seen = [process.usage() for _ in range(15) if not time.sleep(0.1)]  # type: ignore[func-returns-value]
        cpu = [usage.cpu_s for usage in seen if usage]
        assert cpu == sorted(cpu)
        assert cpu[-1] > 0.2
        assert all(usage and usage.rss_bytes > 0 for usage in seen)
    last = process.usage()
    assert last is not None
    assert last.cpu_s >= cpu[-1]


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o400])
@pytest.mark.parametrize("name", ["plain", " a 'b' \"c\"\n$d", "-n", "日本", "x" * 200])
def test_put_and_get(host: Host, scratch: str, name: str, mode: int) -> None:
    data, path = os.urandom(100_000), f"{scratch}/{name}"
    host.put(b"old", path)
    host.put(data, path, mode)
    assert host.get(path) == data
    assert int(host.run(["stat", "-c", "%a", path]).text, 8) == mode
    assert host.run(["ls", "-A", scratch]).stdout == os.fsencode(name) + b"\n"


def test_put_nothing(host: Host, scratch: str) -> None:
    host.put(b"", f"{scratch}/empty")
    assert host.get(f"{scratch}/empty") == b""


def test_put_where_it_cannot_be(host: Host, scratch: str) -> None:
    host.run(["mkdir", f"{scratch}/folder"])
    for path in (f"{scratch}/no/such/file", f"{scratch}/folder"):
        with pytest.raises(HostError, match=path):
            host.put(b"x", path)
    assert host.run(["find", scratch, "-type", "f"]).text == ""


def test_get_what_cannot_be_read(host: Host, scratch: str) -> None:
    for path in (f"{scratch}/missing", scratch):
        with pytest.raises(HostError, match=path):
            host.get(path)


def test_runs_side_by_side(host: Host) -> None:
    def one(number: int) -> bytes:
        return b"".join(
            host.run(
                ["sh", "-c", f"head -c 200000 /dev/zero | tr '\\0' {number}; cat"], input=b"%d" % turn
            ).stdout
            for turn in range(5)
        )

    with ThreadPoolExecutor(4) as pool:
        for number, got in enumerate(pool.map(one, range(4))):
            assert got == b"".join(b"%d" % number * 200000 + b"%d" % turn for turn in range(5))


def test_everything_side_by_side(host: Host) -> None:
    """Commands that end while others start: some servers do not take that well."""

    def some(seed: int) -> None:
        dice = random.Random(seed)
        for turn in range(25):
            match dice.randrange(5):
                case 0:
                    assert host.run(["sh", "-c", f"echo {turn}; exit 3"], check=False).code == 3
                case 1:
                    data = os.urandom(dice.randrange(1, 300_000))
                    assert host.run(["cat"], input=data).stdout == data
                case 2:
                    assert host.run(["head", "-c", "1000000", "/dev/zero"]).stdout == bytes(1_000_000)
                case 3:
                    host.run(["true"], input=bytes(300_000))
                case 4:
                    with host.spawn(["sleep", "1000"]) as process:
                        sig = dice.choice([signal.SIGKILL, signal.SIGTERM])
                        process.kill(sig)
                        assert process.wait(20) == 128 + sig

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(some, range(5)))


def echo_server(host: Host, port: int) -> list[str]:
    """The argv of a server that sends back what it gets; skips where nothing can be one."""
    python = (
        f"import socket; s = socket.create_server(('127.0.0.1', {port}))\n"
        "while c := s.accept()[0]:\n while d := c.recv(65536): c.sendall(d)\n c.close()"
    )
    if host.run(["python3", "-c", ""], check=False).code == 0:
        return ["python3", "-c", python]
    if b"-e PROG" in host.run(["busybox", "nc", "--help"], check=False).stderr:
        return ["busybox", "nc", "-ll", "-p", str(port), "-e", "cat"]
    pytest.skip(f"{host.name} has nothing to make an echo server of")


def dial(host: Host, port: int) -> Connection:
    end = time.monotonic() + 20
    while True:
        try:
            return host.dial(("127.0.0.1", port))
        except HostError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_dial(host: Host) -> None:
    port = 20000 + os.getpid() % 10000
    data = os.urandom(300_000)
    with host.spawn(echo_server(host, port)):
        connection = dial(host, port)
        try:
            connection.settimeout(20)

            def send() -> None:
                rest = data
                while rest:
                    rest = rest[connection.send(rest) :]

            sender = threading.Thread(target=send)
            sender.start()
            got = b""
            while len(got) < len(data):
                piece = connection.recv(65536)
                assert piece
                got += piece
            sender.join()
            assert got == data
        finally:
            connection.close()


def test_dial_where_nothing_answers(host: Host) -> None:
    with pytest.raises(HostError, match="nothing answers"):
        host.dial(("127.0.0.1", 1), 5)
    with pytest.raises(HostError):
        host.dial("/vbench/no/such/socket", 5)


def test_what_fails_is_in_the_log_as_one_would_type_it(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "vbench")
    host.run(["sh", "-c", 'echo "it\'s" $1 >&2; exit 7', "sh", "a  b"], check=False)
    line, said = caplog.messages[-1].split("\n", 1)
    match = re.fullmatch(rf"{re.escape(host.name)}: exit code 7 after \d+\.\d ms: (.+)", line)
    assert match
    assert said == "    | it's a b"
    pasted = subprocess.run(["sh", "-c", match[1]], capture_output=True, text=True, check=False)
    assert (pasted.returncode, pasted.stderr) == (7, "it's a b\n")


def test_a_process_that_ends_is_in_the_log(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "vbench")
    with host.spawn(["sh", "-c", "echo last words; exit 9"]) as process:
        process.wait(30)
    begun = f"{host.name}: process {process.pid} started: sh -c 'echo last words; exit 9'"
    assert begun in caplog.messages
    (ended,) = (event for event in caplog.messages if "had already ended" in event)
    assert re.match(
        rf"{re.escape(host.name)}: process {process.pid} had already ended: code 9, after \d", ended
    )
    assert ended.endswith("\n    | last words")
