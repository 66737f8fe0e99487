"""Deterministic machines without one: requests and replies, trails, and snapshots."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from vbench.errors import ConnectionLost, HostError, VbenchError
from vbench.exact.console import Console
from vbench.exact.line import HEAD, ROOM, Reply, Request, follow
from vbench.exact.machine import RAM, STATE
from vbench.exact.snapshots import Raw, Snapshots
from vbench.exact.trail import Trail
from vbench.hosts.base import Host, Setting
from vbench.hosts.local import LocalHost
from vbench.layers.base import Available, Layer, Shape
from vbench.layers.stack import open_layer

PIECE = 4 << 20


class Adder:
    """A machine that answers with all it was told; what it was told is its memory."""

    def __init__(self, raw: Raw, *, saved: bool, wrong: bool = False) -> None:
        self.told = raw.ram.read_text() if saved else ""
        self.asked: list[str] = []
        self.forks: list[Adder] = []
        self.gone = False
        self.wrong = wrong

    def ask(self, request: Request) -> Reply:
        self.asked.append(request.what)
        self.told += request.what
        out = ("wrong" if self.wrong else self.told).encode()
        return Reply(0, 0, 0, len(self.told), out, b"")

    @contextmanager
    def forked(self) -> Iterator[Adder]:
        child = copy.copy(self)
        child.asked = []
        self.forks.append(child)
        child.forks = []
        yield child
        child.gone = True

    def save(self, folder: Path) -> None:
        (folder / RAM).write_text(self.told)
        (folder / STATE).write_bytes(b"devices")


class Bench:
    """Trails over one home of snapshots, and the machines that they have started."""

    def __init__(self, tmp_path: Path) -> None:
        self.home, self.memory = tmp_path / "snapshots", tmp_path / "memory"
        self.memory.mkdir()
        self.machines: list[Adder] = []
        self.wrong = False

    def trail(self, *, saves: bool = True) -> Trail:
        store = Snapshots(self.home, self.memory)
        return Trail("origin", store, self.start, saves=saves)  # type: ignore[arg-type]

    @contextmanager
    def start(self, raw: Raw, saved: bool, private: bool) -> Iterator[Adder]:
        self.machines.append(Adder(raw, saved=saved, wrong=self.wrong))
        yield self.machines[-1]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def said(trail: Trail, words: str) -> str:
    return [trail.ask(Request(word)).out.decode() for word in words][-1]


def test_what_does_not_fit_into_the_box_is_refused_here() -> None:
    """There it would end the machine."""
    rest = ROOM - len(Request("R", ("cat",)).encode())
    assert len(Request("R", ("cat",), bytes(rest)).encode()) == ROOM
    with pytest.raises(HostError, match=r"takes 16 MiB of input at once, this is 16\.0"):
        Request("R", ("cat",), bytes(rest + 1)).encode()


def test_a_reply_survives_the_box() -> None:
    reply = Reply(-1, 3, 5, 7, b"out", b"error")
    data = reply.encode()
    assert Reply.decode(data) == reply
    assert Reply.size(data[:HEAD]) == len(data)


def test_a_state_is_all_that_led_to_it() -> None:
    requests = [
        Request("R", ("a", "b")),
        Request("R", ("ab",)),
        Request("R", ("a", "b"), b"x"),
        Request("Z", seconds=1),
    ]
    assert len({follow("origin", each) for each in requests}) == 4
    assert follow(follow("origin", requests[0]), requests[1]) != follow(
        follow("origin", requests[1]), requests[0]
    )


def test_what_was_asked_before_is_known_and_starts_no_machine(bench: Bench) -> None:
    first = bench.trail()
    assert said(first, "ab") == "ab"
    first.mark()
    assert len(bench.machines) == 1
    second = bench.trail()
    assert said(second, "ab") == "ab"
    second.mark()
    assert len(bench.machines) == 1
    assert said(second, "c") == "abc"
    assert bench.machines[1].asked == ["c"]


def test_each_way_back_leads_to_the_same_state(bench: Bench) -> None:
    trail = bench.trail()
    said(trail, "ab")
    mark, chance = trail.mark(), trail.chance.getstate()
    for _ in range(2):
        trail.back_to(mark)
        assert trail.chance.getstate() == chance
        assert trail.chance.random() > 0
        assert said(trail, "xy") == "abxy"
    with pytest.raises(HostError, match="cannot become a snapshot"):
        trail.mark()


def test_another_way_branches_off_where_it_differs(bench: Bench) -> None:
    first = bench.trail()
    said(first, "a")
    first.mark()
    said(first, "b")
    first.mark()
    other = bench.trail()
    said(other, "a")
    other.mark()
    assert said(other, "c") == "ac"
    assert bench.machines[-1].asked == ["c"]  # from the snapshot after a


def test_all_go_on_from_a_snapshot_whoever_made_it(bench: Bench) -> None:
    """A machine that just went on could take an interrupt a little earlier than one that was restored."""
    one, two = bench.trail(), bench.trail()
    said(one, "a")
    said(two, "a")  # both began when there was none
    assert one.mark() == two.mark()
    for trail in (one, two):
        assert said(trail, "b") == "ab"
    assert [machine.asked for machine in bench.machines] == [["a"], ["a"], ["b"], ["b"]]


@pytest.mark.parametrize("back", [False, True])
def test_a_snapshot_missing_on_the_way_is_made_anew_and_gone_on_from(bench: Bench, back: bool) -> None:
    first = bench.trail()
    said(first, "a")
    name = first.mark()[:32]
    said(first, "b")
    first.note()
    again = bench.trail()
    said(again, "a")
    mark = again.mark()
    if back:
        again.back_to(mark)
    said(again, "b")
    shutil.rmtree(bench.home / name)
    bench.machines.clear()
    assert said(again, "c") == "abc"
    assert [machine.asked for machine in bench.machines] == [["a"], ["b", "c"]]
    assert (bench.home / name / RAM).with_name("ram.z").exists()


def test_what_is_open_in_a_machine_is_not_closed_there_but_switched_off(bench: Bench) -> None:
    """What failed to open was closed request by request, and the last error ended the run."""
    later: list[str] = []

    class Lower(Layer):
        def probe(self, parent: Host) -> Available:
            return Available()

        @contextmanager
        def open(self, parent: Host, shape: Shape) -> Iterator[Host]:
            trail = bench.trail()
            try:
                yield Console(trail, Setting("machine"))
            finally:
                with pytest.raises(ConnectionLost):
                    trail.ask(Request("b"))
                later.append("closed")

    hosts: list[Host] = [LocalHost()]
    with ExitStack() as opened:
        assert open_layer(opened, hosts, Lower(), Shape()) == []
        assert [host.name for host in hosts] == ["local", "machine"]
    assert later == ["closed"]
    assert [machine.asked for machine in bench.machines] == [["R"]]  # to come to rest
    assert len(list(bench.home.glob("*/ram.z"))) == 1


def test_what_came_after_the_last_snapshot_is_asked_again_and_compared(bench: Bench) -> None:
    trail = bench.trail()
    said(trail, "a")
    mark = trail.mark()
    trail.back_to(mark)
    said(trail, "bc")
    trail.note()
    again = bench.trail()
    said(again, "a")
    again.mark()
    assert said(again, "bc") == "abc"
    assert said(again, "d") == "abcd"
    assert bench.machines[-1].asked == ["b", "c", "d"]
    bench.wrong, last = True, bench.trail()
    said(last, "a")
    last.mark()
    said(last, "bc")
    with pytest.raises(HostError, match="not exact"):
        said(last, "e")


def test_a_parked_machine_is_forked_and_never_asked_again(bench: Bench) -> None:
    trail = bench.trail()
    said(trail, "a")
    trail.back_to(trail.mark())
    said(trail, "b")
    mark = trail.park()
    machine = bench.machines[-1]
    for _ in range(2):
        trail.back_to(mark)
        assert said(trail, "cd") == "abcd"
    assert [fork.asked for fork in machine.forks] == [["c", "d"]] * 2
    assert machine.forks[0].gone
    assert machine.asked == ["b"]
    assert machine is bench.machines[-1]  # no other was started
    trail.discard()
    assert machine.forks[1].gone


def test_a_fork_is_parked_where_others_come_by(bench: Bench) -> None:
    """The same way gone again is known, and begins at its end; of such places only the last is kept."""
    trail = bench.trail()
    said(trail, "a")
    trail.back_to(trail.mark())
    mark = trail.park()
    machine = bench.machines[-1]
    for last in "xy":
        trail.back_to(mark)
        said(trail, "s")
        trail.park()
        assert said(trail, last) == f"as{last}"
    (fork,) = machine.forks  # it set up once
    assert [(each.asked, each.told) for each in fork.forks] == [(["x"], "asx"), (["y"], "asy")]
    trail.back_to(mark)
    said(trail, "t")
    trail.park()
    assert fork.gone


def test_what_can_become_a_snapshot_is_not_parked(bench: Bench) -> None:
    trail = bench.trail()
    said(trail, "a")
    with pytest.raises(HostError, match="cannot be parked"):
        trail.park()


def test_a_machine_that_cannot_be_saved_waits_where_it_would_be(bench: Bench) -> None:
    trail = bench.trail(saves=False)
    said(trail, "ab")
    first = trail.mark()
    assert said(trail, "cd") == "abcd"
    second = trail.mark()
    assert said(trail, "e") == "abcde"
    trail.back_to(second)
    assert said(trail, "f") == "abcdf"
    trail.back_to(first)
    assert said(trail, "x") == "abx"
    (machine,) = bench.machines  # all others are its forks, and what is asked of these is not asked of it
    assert machine.asked == ["a", "b"]
    assert [fork.asked for fork in machine.forks] == [["c", "d"], ["x"]]
    trail.discard()
    assert not any(path.name == RAM for path in bench.home.rglob("*"))


def test_the_next_one_is_started_only_for_what_nobody_has_asked(bench: Bench) -> None:
    once = bench.trail(saves=False)
    said(once, "ab")
    once.mark()
    said(once, "cd")
    once.mark()
    once.discard()
    again = bench.trail(saves=False)
    said(again, "ab")
    again.mark()
    assert said(again, "cd") == "abcd"
    mark = again.mark()
    assert len(bench.machines) == 1
    assert said(again, "e") == "abcde"
    assert len(bench.machines) == 2  # from power-on
    again.back_to(mark)
    assert said(again, "f") == "abcdf"
    assert len(bench.machines) == 2


def test_a_machine_left_answers_nothing_until_somebody_comes_back(bench: Bench) -> None:
    trail = bench.trail()
    said(trail, "a")
    mark = trail.mark()
    trail.back_to(mark)
    said(trail, "b")
    trail.leave()
    with pytest.raises(ConnectionLost):
        said(trail, "c")
    trail.back_to(mark)
    assert said(trail, "c") == "ac"


def test_a_machine_switched_off_answers_nothing(bench: Bench) -> None:
    trail = bench.trail()
    said(trail, "a")
    trail.discard()
    with pytest.raises(ConnectionLost):
        said(trail, "b")


def machine(store: Snapshots, *pieces: tuple[int, bytes], size: int = 10 * PIECE) -> Raw:
    raw = store.blank()
    with raw.ram.open("wb") as file:
        file.truncate(size)
        for at, data in pieces:
            os.pwrite(file.fileno(), data, at)
    (raw.folder / STATE).write_bytes(b"devices")
    return raw


def test_memory_survives_packing_holes_included(bench: Bench) -> None:
    store = Snapshots(bench.home, bench.memory)
    pieces = [(0, b"begin"), (3 * PIECE - 5, b"across two"), (10 * PIECE - 3, b"end")]
    raw = machine(store, *pieces)
    wanted = raw.ram.read_bytes()
    store.keep("a" * 64, "origin", raw, {})
    found = Snapshots(bench.home, bench.memory).raw("a" * 64)
    assert found is not None
    assert found.ram.read_bytes() == wanted
    assert (found.folder / STATE).read_bytes() == b"devices"
    assert found.ram.stat().st_blocks * 512 < 5 * PIECE
    packed = bench.home / ("a" * 32) / "ram.z"
    assert packed.stat().st_size < 10_000


@pytest.mark.parametrize("name", ["ram.z", STATE, "snapshot.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "missing"])
def test_a_damaged_snapshot_is_never_trusted(bench: Bench, name: str, how: str) -> None:
    store = Snapshots(bench.home, bench.memory)
    store.keep("a" * 64, "origin", machine(store, (0, b"begin")), {})
    file = bench.home / ("a" * 32) / name
    data = file.read_bytes()
    match how:
        case "cut":
            file.write_bytes(data[: len(data) // 2])
        case "flipped":
            file.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        case "missing":
            file.unlink()
    fresh = Snapshots(bench.home, bench.memory)
    assert fresh.raw("a" * 64) is None
    assert not fresh.holds("a" * 64)


def test_answers_with_a_wrong_digest_are_not_known(bench: Bench) -> None:
    trail = bench.trail()
    said(trail, "ab")
    trail.mark()
    (file,) = bench.home.glob("*/answers")
    file.write_bytes(file.read_bytes().replace(b"ab", b"xy"))
    assert Snapshots(bench.home, bench.memory).answers("origin") == {}


def test_the_oldest_make_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbench.exact.snapshots.ROOM", 20_000)
    store = Snapshots(bench.home, bench.memory)
    for number, letter in enumerate("abc"):
        store.keep(letter * 64, "origin", machine(store, (0, os.urandom(8000))), {})
        told = bench.home / (letter * 32) / "snapshot.json"
        if told.exists():
            os.utime(told, (number, number))
    assert sorted(json.loads(f.read_text())["origin"] for f in bench.home.glob("*/snapshot.json"))
    assert not (bench.home / ("a" * 32)).exists()


def test_no_room_to_unpack_is_said_in_one_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Snapshots(bench.home, bench.memory)
    store.keep("a" * 64, "origin", machine(store, (0, b"begin")), {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vbench.exact.snapshots._unpack", full)
    with pytest.raises(VbenchError, match=r"no room in .* for the testbed's memory"):
        Snapshots(bench.home, bench.memory).raw("a" * 64)
    assert (bench.home / ("a" * 32)).exists()
