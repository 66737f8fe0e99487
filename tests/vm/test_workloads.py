"""Every workload in real environments, the life of an environment, and a workload that somebody adds."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vbench import load
from vbench.capsule.capsule import Capsule
from vbench.errors import HostError
from vbench.harness import lifecycle
from vbench.harness.invoke import Environment, prepare
from vbench.hosts.local import LocalHost
from vbench.layers.base import make_layer
from vbench.layers.stack import Stack
from vbench.workload.library import load_workloads

from .conftest import LAYERS, SHAPE, Opener, a_guest, rows

KNOWN = load_workloads()
COMMANDS = [name for name, workload in KNOWN.items() if workload.cycle is None]
TRUE = ["true"]
# All of them everywhere takes half an hour: by default on the machine itself and in the slowest of the guests by
# the wall clock, but for two that take minutes there, and with VBENCH_EVERYWHERE=1 all of them in the others, too.
LONG = ("cpu-compile", "cpu-compress")
STACKS = ["local", f"local/{a_guest()}"]
if os.environ.get("VBENCH_EVERYWHERE"):
    STACKS += [f"local/{layer}" for layer in LAYERS if f"local/{layer}" not in STACKS]


@pytest.fixture(scope="module", params=STACKS)
def env(request: pytest.FixtureRequest, opener: Opener, built: Capsule) -> Iterator[Environment]:
    """An open stack, shared by the tests of this file."""
    with opener(request.param) as host:
        peer = LocalHost("outside", built.payload())
        yield Environment(Stack.parse(request.param), host, peer)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_workload_gives_all_its_metrics(env: Environment, name: str) -> None:
    """Set-up, calibration and one invocation, with less work than in a real run."""
    workload = KNOWN[name]
    if name in LONG and env.stack.depth and not os.environ.get("VBENCH_EVERYWHERE"):
        pytest.skip("takes minutes in an emulator; VBENCH_EVERYWHERE=1 runs it")
    if workload.work is not None:
        less = workload.work.model_copy(update={"target_s": 0.05})
        workload = workload.model_copy(update={"work": less})
    once = prepare(env, workload)
    assert [metric.name for metric, _ in once.values] == [metric.name for metric in workload.metrics]
    assert all(value > 0 for _, value in once.values)
    assert once.cost.host_cpu_s is not None
    assert once.guest_s is None or 0 < once.guest_s <= once.parent_s * 1.1 + 0.1
    if workload.teardown is not None:
        places = {"scratch": env.host.scratch, "tree": ""}
        env.host.run(workload.render(workload.teardown.command, env.host.program, **places))


def test_what_an_environment_does_is_counted_on_its_host(env: Environment) -> None:
    once = prepare(env, KNOWN["os-tcp-latency"])
    assert once.cost.host_switches is not None
    assert once.cost.host_switches > 0
    if env.stack.layers:  # of a small command on the machine itself, the kernel may not tell
        assert once.cost.rss_mib is not None
        assert once.cost.rss_mib > 0.1


def test_a_guest_s_parent_may_be_a_guest(opener: Opener) -> None:
    """What the inner one uses is then asked of the outer one, over SSH."""
    with opener("chroot/chroot") as host:
        before = host.usage()
        host.run(["sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"])
        after = host.usage()
    assert before is not None
    assert after is not None
    assert after.cpu_s > before.cpu_s
    assert after.rss_bytes > 2**16
    assert after.switches is not None


@pytest.fixture(params=["bare", "chroot", a_guest()])
def another(
    request: pytest.FixtureRequest, can: Callable[[str], None], built: Capsule, tmp_path: Path
) -> lifecycle.Opener:
    host = LocalHost(payload=built.payload(), scratch=str(tmp_path))
    if request.param == "bare":
        return lifecycle.Opener.bare(host, counted=False)
    can(request.param)
    return lifecycle.Opener(host, lambda: make_layer(request.param).open(host, SHAPE), counted=False)


def test_start_and_stop(another: lifecycle.Opener) -> None:
    found = lifecycle.start(another, TRUE)
    assert set(found) == {"start", "stop"}
    assert 0 < found["start"] < 60
    assert 0 < found["stop"] < 20


def test_restart_after_a_kill(another: lifecycle.Opener) -> None:
    start = lifecycle.start(another, TRUE)["start"]
    found = lifecycle.restart(another, TRUE)
    assert found["restart"] > start / 5


def test_an_idle_environment(another: lifecycle.Opener) -> None:
    found = lifecycle.idle(another, TRUE, 1.0)
    assert 0.01 < found["pss"] < 2 * SHAPE.memory_mib
    assert 0 <= found["cpu"] < 500
    assert another.parent.run(["ls", another.parent.scratch]).text == ""


def test_a_guest_takes_more_than_a_process(
    built: Capsule, can: Callable[[str], None], tmp_path: Path
) -> None:
    kernel = a_guest()
    can(kernel)
    host = LocalHost(payload=built.payload(), scratch=str(tmp_path))
    process = lifecycle.Opener.bare(host, counted=False)
    guest = lifecycle.Opener(host, lambda: make_layer(kernel).open(host, SHAPE), counted=False)
    assert lifecycle.start(guest, TRUE)["start"] > 5 * lifecycle.start(process, TRUE)["start"]
    small, large = (lifecycle.idle(another, TRUE, 0.5) for another in (process, guest))
    assert large["pss"] > 5 * small["pss"]
    assert large["disk"] > small.get(
        "disk", 0.0
    )  # how much, its scratch image being sparse, is the file system's


def test_a_start_that_fails_is_an_error(built: Capsule) -> None:
    """And not taken for the kill of a restart."""
    host = LocalHost(payload=built.payload(), scratch="/nonexistent")
    another = lifecycle.Opener(host, lambda: make_layer("chroot").open(host, SHAPE), counted=False)
    with pytest.raises(HostError):
        lifecycle.restart(another, TRUE)


MINE = """
kind = "os"
title = "Yield the processor"
about = "Starting a shell that does nothing: added by one file."
command = ["@vbench-probe", "forkexec", "--work", "{work}", "--", "@busybox", "sh", "-c", "exit {code}"]

[params]
code = 0

[work]
unit = "shells"
start = 2
max = 64

[[metrics]]
name = "time"
unit = "us"
better = "lower"
json = "value"
scale = 1e6
primary = true
"""


def test_a_workload_is_added_by_one_file(
    tmp_path: Path, can: Callable[[str], None], vbench: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    can("chroot")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/my-shell.toml").write_text(MINE)
    more = ("--workloads", tmp_path / "mine")
    shown = json.loads(vbench("workloads", "my-shell", *more, "--json").stdout)
    assert shown[0]["metrics"] == "time [us], lower is better"
    done = vbench("run", "-s", "chroot", "-w", "my-shell", *more, "--blocks", "1", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    measured = [row for row in rows(tmp_path / "run") if not row["warmup"]]
    assert {row["workload"] for row in measured} == {"my-shell"}
    assert {row["stack"] for row in measured} == {"local", "local/chroot"}
    assert load(tmp_path / "run").info.failures == []


def test_a_plan_sweeps_a_parameter(
    tmp_path: Path, can: Callable[[str], None], vbench: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    can("chroot")
    plan = 'stacks = ["chroot"]\nblocks = 1\n[[sweep]]\nworkload = "os-select"\nfds = [10, 100]\n'
    (tmp_path / "plan.toml").write_text(plan)
    done = vbench("run", tmp_path / "plan.toml", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    measured = [row for row in rows(tmp_path / "run") if not row["warmup"] and row["stack"] == "local"]
    assert {(row["workload"], row["params"]) for row in measured} == {
        ("os-select", '{"fds":100}'),
        ("os-select:fds=10", '{"fds":10}'),
    }
    times = {str(row["workload"]): float(str(row["value"])) for row in measured}
    assert times["os-select"] > times["os-select:fds=10"]
    assert vbench("verify", tmp_path / "run").returncode == 0
