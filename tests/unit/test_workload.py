"""Workload files: what is accepted, how commands are made of them, and how output is read."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vbench.capsule.rootfs import Recipe
from vbench.errors import UsageError, VbenchError
from vbench.paths import workload_files
from vbench.workload.calibration import WorkSize, calibrate
from vbench.workload.extract import Output, Reading
from vbench.workload.library import load_workload, load_workloads
from vbench.workload.mix import profiles
from vbench.workload.model import Workload
from vbench.workload.selection import page, select
from vbench.workload.template import render

MINIMAL = """
kind = "os"
title = "A title"
about = "What it measures."
command = ["@tool", "--work={work}", "--size={size}"]
guest_seconds = { json = "elapsed" }

[params]
size = 4

[work]
unit = "calls"
start = 10
max = 1000000

[[metrics]]
name = "time"
unit = "us"
better = "lower"
json = "value"
scale = 1e6
primary = true
"""


def write(folder: Path, text: str, name: str = "sample") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Workload:
    return load_workload(write(tmp_path, MINIMAL))


def program(name: str) -> list[str]:
    return ["/loader", f"/bin/{name}"]


# --- the files that come with vbench -------------------------------------------------------------------------


def test_built_in_workloads_cover_every_kind() -> None:
    found = load_workloads()
    assert list(found) == sorted(found)
    kinds = {"cpu", "memory", "disk", "network", "os"}
    assert {w.kind for w in found.values() if "quick" in w.groups} == kinds
    assert {w.kind for w in found.values() if "standard" in w.groups} == kinds | {"application"}
    assert {w.kind for w in found.values() if "full" in w.groups} == kinds | {"application", "lifecycle"}
    groups = {group for w in found.values() for group in w.groups}
    assert groups == {"quick", "standard", "full", "lmbench", "io", "testbed", "lifecycle"}
    quick = {"cpu-int", "cpu-float", "mem-bandwidth", "net-latency", "os-nullcall", "os-forkexec"}
    assert quick | {f"disk-{a}-{b}" for a in ("seq", "rand") for b in ("read", "write")} <= set(found)
    assert len({w.digest for w in found.values()}) == len(found)


@pytest.mark.parametrize("path", sorted(workload_files().glob("*.toml")), ids=lambda path: path.stem)
def test_built_in_workload_renders(path: Path) -> None:
    workload = load_workload(path)
    places = {"scratch": "/s", "tree": "/t"}
    values: dict[str, str | int] = {"work": 7, "peer": "192.0.2.1", "port": 5, **places}
    argv = workload.render(workload.command, program, **values)
    assert argv[0] == "/loader"
    assert workload.work is None or any("7" in part for part in argv)
    for step in workload.setup, workload.teardown:
        assert step is None or workload.render(step.command, program, **places)
    if workload.server:
        assert workload.render(workload.server.command, program, listen="192.0.2.1", port=5, **places)
    assert workload.programs <= {
        Path(program).name for program in Recipe.load(workload_files() / "src").measured
    }
    # Work is sized by hand only where there is nothing to size.
    assert (workload.work is None) == (workload.kind == "lifecycle" or workload.name == "cpu-crypto")
    assert "full" in workload.groups
    assert len(workload.about.split()) >= 25  # what it measures, what it does not, what it exposes


# --- digests and parameters ----------------------------------------------------------------------------------


def test_digest_follows_what_is_measured(tmp_path: Path, sample: Workload) -> None:
    def digest(text: str) -> str:
        return load_workload(write(tmp_path, text)).digest

    assert digest("# a comment\n" + MINIMAL.replace("A title", "Another")) == sample.digest
    assert digest(MINIMAL.replace("size = 4", "size = 5")) != sample.digest
    assert digest(MINIMAL.replace("scale = 1e6", "scale = 1e3")) != sample.digest
    assert sample.with_params({"size": 5}).digest == digest(MINIMAL.replace("size = 4", "size = 5"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sise": 5}, "workload sample: unknown parameter 'sise', did you mean size? allowed: size"),
        ({"size": "5"}, "workload sample: parameter size is '5', not of type int"),
        ({"size": True}, "workload sample: parameter size is True, not of type int"),
    ],
)
def test_parameters_are_checked(sample: Workload, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        sample.with_params(changes)
    assert caught.value.message == told


def test_a_variant_is_named_by_what_differs(sample: Workload) -> None:
    assert sample.with_params({"size": 5}).name == "sample:size=5"
    assert sample.with_params({"size": 5}).with_params({"size": 4}).name == "sample"
    found = load_workloads()
    one = found["os-ctxsw:kib=16,procs=8"]
    assert one.name == "os-ctxsw:procs=8,kib=16"
    assert one.params == {"procs": 8, "kib": 16}
    assert found[one.name] == one
    assert "os-ctxsw:procs=8" not in found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("os-ctxsv:kib=1", "unknown workload 'os-ctxsv'"),
        ("os-ctxsw:kb=1", "workload os-ctxsw: unknown parameter 'kb', did you mean kib?"),
        ("os-ctxsw:kib=x", "workload os-ctxsw: parameter kib is 'x', not of type int"),
        ("os-ctxsw:kib", "os-ctxsw:kib: write os-ctxsw:PARAMETER=VALUE,..."),
        ("os-ctxsw:", "os-ctxsw:: write"),
    ],
)
def test_a_bad_variant_is_one_clear_line(name: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(load_workloads(), name)
    assert caught.value.message.startswith(told)


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("cpu-int,os-nullcall", ["cpu-int", "os-nullcall"]),
        ("mem-latency:kib=64,stride=4096", ["mem-latency:kib=64,stride=4096"]),
        (
            "cpu-int, mem-latency:kib=64,stride=4096,os-ctxsw:procs=8,kib=16,cpu-float",
            ["cpu-int", "mem-latency:kib=64,stride=4096", "os-ctxsw:procs=8,kib=16", "cpu-float"],
        ),
    ],
)
def test_several_names_stand_in_a_row(row: str, names: list[str]) -> None:
    assert [one.name for one in select(load_workloads(), row)] == names


@pytest.mark.parametrize("row", ["cpu-int,", ",cpu-int", "cpu-int,stride=4096", "cpu-int,nosuch"])
def test_a_row_with_a_name_that_is_none(row: str) -> None:
    with pytest.raises(UsageError, match="unknown workload or group"):
        select(load_workloads(), row)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cpu-imt", "did you mean cpu-int?"),
        ("quik", "did you mean quick?"),
        ("nginx", "did you mean app-nginx?"),  # a part of its name
        ("databse", "did you mean app-sqlite?"),  # a word of its title, nearly
        ("network", "did you mean net-iperf3, net-latency, net-small or 2 others?"),  # its kind
        ("os-ctxsv:kib=1", "did you mean os-ctxsw?"),
        ("xyzzy", "`vbench workloads` lists them all"),
        ("x" * 1000, "`vbench workloads` lists them all"),
    ],
)
def test_an_unknown_name_is_told_in_two_short_lines(name: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(load_workloads(), name)
    assert len(caught.value.message) < 120
    hint = str(caught.value.hint)
    assert hint.startswith(meant)
    assert hint.endswith("`vbench workloads` lists them all")
    assert len(hint) < 160


@pytest.mark.parametrize("mix", profiles())
def test_a_mix_is_no_workload_and_its_kinds_are_named(mix: str) -> None:
    known = load_workloads()
    with pytest.raises(UsageError) as caught:
        select(known, mix)
    assert "it is a mix for `vbench advise`" in caught.value.message
    offered = re.search(r"-w (\S+);", str(caught.value.hint))
    assert offered
    assert [one.kind for one in select(known, offered[1])] == list(profiles()[mix].weights)
    assert ("app-nginx" in str(caught.value.hint)) == (mix == "web")


def test_a_group_sweeps_parameters() -> None:
    found = load_workloads()
    names = [one.name for one in select(found, "lmbench")]
    assert len(set(names)) == len(names)
    rings = [found[name].params for name in names if name.startswith("os-ctxsw")]
    switches = {(each["procs"], each["kib"]) for each in rings}
    assert switches == {(procs, kib) for procs in (2, 8, 16) for kib in (0, 16, 64)}
    assert {"os-select", "os-select:fds=10", "os-create", "os-create:kib=10"} <= set(names)
    assert [one.name for one in select(found, "standard") if "ctxsw" in one.name] == ["os-ctxsw"]


@pytest.mark.parametrize("name", load_workloads())
def test_a_page_says_unit_and_direction(name: str) -> None:
    workload = load_workloads()[name]
    shown = page(workload)
    for metric in workload.metrics:
        assert f"{metric.name} [{metric.unit}], {metric.better} is better" in shown["metrics"]


def test_an_optional_metric_may_be_missing(tmp_path: Path) -> None:
    extra = '\n[[metrics]]\nname = "more"\nunit = "s"\nbetter = "lower"\njson = "more"\noptional = true\n'
    workload = load_workload(write(tmp_path, MINIMAL + extra))
    assert [metric.name for metric, _ in workload.parse(b'{"value": 1, "more": 2}')] == ["time", "more"]
    for output in b'{"value": 1}', b'{"value": 1, "more": 0}':
        assert [metric.name for metric, _ in workload.parse(output)] == ["time"]
    with pytest.raises(VbenchError, match="workload sample: time: "):
        workload.parse(b'{"more": 2}')


# --- bad files -----------------------------------------------------------------------------------------------

BAD = {
    "malformed TOML": ('kind = "os"', "kind = os", "Invalid value"),
    "unknown key": ("kind =", "knid = 1\nkind =", "unknown key 'knid', did you mean kind? allowed: about,"),
    "unknown nested key": ("[work]\nunit", "[work]\nstrat = 1\nunit", "'work.strat', did you mean work.start?"),
    "unknown metric key": ("scale", "skale", "'metrics.0.skale', did you mean metrics.0.scale? allowed: better"),
    "missing key": ('title = "A title"\n', "", "title: Field required"),
    "wrong type": ("start = 10", 'start = "10"', "work.start: Input should be a valid integer, not '10'"),
    "wrong kind": ('kind = "os"', 'kind = "oz"', "kind: Input should be 'cpu'"),
    "wrong direction": ('"lower"', '"less"', "metrics.0.better: Input should be 'higher' or 'lower', not 'less'"),
    "a name": ('title = "A', 'name = "x"\ntitle = "A', "the key name is not allowed"),
    "both paths": ('json = "value"', 'json = "value"\nregex = "(a)"', "metrics.0: needs either json or regex"),
    "neither path": ('json = "value"\n', "", "metrics.0: needs either json or regex"),
    "bad path": ('json = "value"', 'json = "a..b"', "metrics.0: json path 'a..b' is malformed"),
    "bad regex": ('json = "value"', 'regex = "("', "metrics.0: '(' is not a regular expression"),
    "regex without group": ('json = "value"', 'regex = "a"', "metrics.0: regex 'a' needs exactly one group"),
    "no primary": ("primary = true\n", "", "metrics: exactly one needs primary = true"),
    "scale of 0": ("scale = 1e6", "scale = 0", "metrics.0.scale: Input should be greater than 0"),
    "scale nan": ("scale = 1e6", "scale = nan", "metrics.0.scale"),
    "unknown placeholder": ("{size}", "{sise}", "command: '--size={sise}': unknown placeholder 'sise', did you"),
    "empty placeholder": ("{size}", "{}", "unknown placeholder '{}'"),
    "lone brace": ("{size}", "{size", "unknown placeholder '{'"),
    "no program": ('"@tool"', '"/bin/tool"', "command: must begin with a capsule program"),
    "work unused": ("{work}", "5", "command: {work} and the table [work] go together"),
    "parameter unused": ("--size={size}", "x", "params.size is not used in any command"),
    "parameter reserved": ("size = 4", "work = 4", "params: 'work' is not allowed as a parameter name"),
    "parameter a list": ("size = 4", "size = [4]", "params: size must be a string or a number"),
    "parameter a truth": ("size = 4", "size = true", "params: size must be a string or a number"),
    "port of nothing": ("{size}", "{size}:{port}", "command: {port} needs a [server]"),
    "empty command": ('["@tool", "--work={work}", "--size={size}"]', "[]", "command: Tuple should have at least"),
    "a shell string": ('["@tool", "--work={work}", "--size={size}"]', '"@tool"', "command: Input should be a valid"),
    "start above max": ("start = 10", "start = 10000000", "work: needs min <= start <= max"),
    "negative time-out": ("[params]", "timeout_s = -1\n[params]", "timeout_s: Input should be greater than 0, not -1"),
    "optional primary": ("primary = true", "primary = true\noptional = true", "that one cannot be optional"),
    "a cycle elsewhere": ("[params]", 'cycle.do = "idle"\n[params]', "kind: 'lifecycle' and the table [cycle] go"),
    "a sweep of nothing": ("[work]", "[sweeps.all]\nsize = [1]\n[work]", "sweeps.all: it is not one of its groups"),
    "a setup with work": ("[params]", 'setup.command = ["@tool", "{work}"]\n[params]', "setup.command: '{work}'"),
    "server without port": (
        "[params]",
        'server = {command = ["@srv"], ready = "up"}\n[params]',
        "server: needs either {port} in its command or one group",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, case: str) -> None:
    old, new, told = BAD[case]
    assert old in MINIMAL
    path = write(tmp_path, MINIMAL.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_workload(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert told in caught.value.message
    assert "\n" not in caught.value.message


def test_bad_encoding_and_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.toml").mkdir()
    for name in ("bytes", "folder"):
        with pytest.raises(UsageError):
            load_workload(tmp_path / f"{name}.toml")


@pytest.mark.parametrize("name", ["Upper", "under_score", "a b", "ü", ".."])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="a workload's name may contain only"):
        load_workload(write(tmp_path, MINIMAL, name))


def test_folders(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name in (one, "b"), (two, "a"):
        folder.mkdir()
        write(folder, MINIMAL, name)
    assert list(load_workloads([one, two])) == ["a", "b"]
    write(two, MINIMAL, "b")
    with pytest.raises(UsageError, match="b is defined by both"):
        load_workloads([one, two])
    with pytest.raises(UsageError, match="is not a directory"):
        load_workloads([tmp_path / "none"])


# --- rendering -----------------------------------------------------------------------------------------------


def test_programs_and_escapes() -> None:
    argv = render(["@fio", "--x={a}{b}", "@@plain", "{{{a}}}", "--", "@sh"], {"a": 1, "b": "{c}"}, program)
    assert argv == ["/loader", "/bin/fio", "--x=1{c}", "@plain", "{1}", "--", "/loader", "/bin/sh"]


def test_an_unknown_placeholder_names_the_workload(sample: Workload) -> None:
    with pytest.raises(UsageError, match=r"workload sample: .*unknown placeholder 'work'"):
        sample.render(sample.command, program)


@given(st.text(), st.text(), st.text())
def test_values_stay_inside_their_argument(before: str, value: str, after: str) -> None:
    """Whatever a value holds - spaces, quotes, braces, @ - it is one part of one argument."""

    def plain(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    template = f"x{plain(before)}{{v}}{plain(after)}"
    assert render([template], {"v": value}, program) == [f"x{before}{value}{after}"]


# --- reading output ------------------------------------------------------------------------------------------


def test_values_are_scaled(sample: Workload) -> None:
    found = sample.parse(b'note: something\n{"value": 2.5e-6, "elapsed": 3}')
    assert [metric.name for metric, _ in found] == ["time"]
    assert found[0][1] == pytest.approx(2.5)
    assert sample.guest_s(b'{"elapsed": 3}') == 3.0


BAD_VALUES = [
    "null", "true", '"5"', "[]", "{}", "NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "-0.0", "1" * 400
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_VALUES)
def test_what_is_no_measurement_is_an_error(sample: Workload, value: str) -> None:
    with pytest.raises(VbenchError, match="workload sample: time: ") as caught:
        sample.parse(f'{{"value": {value}}}'.encode())
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "output", ["", "nothing", '{"other": 1}', '{"value"', '[{"value": 1}]', '{"a":' * 99999]
)
def test_missing_values_are_errors(sample: Workload, output: str) -> None:
    with pytest.raises(VbenchError, match="workload sample: time: "):
        sample.parse(output.encode())


def test_time_too_short_to_resolve_is_0_for_calibration_only(sample: Workload) -> None:
    assert sample.measured_s(b'{"elapsed": 0}') == 0.0
    with pytest.raises(VbenchError):
        sample.guest_s(b'{"elapsed": 0}')
    with pytest.raises(VbenchError):
        sample.measured_s(b"{}")


def test_paths() -> None:
    output = Output(json.dumps({"jobs": [{"p": {"99.0": 7}}, {"0": 3}]}).encode())
    assert Reading(json='jobs.0.p."99.0"').value(output) == 7
    assert Reading(json="jobs.1.0").value(output) == 3
    for path in ("jobs.2", "jobs.p", "jobs.0.p.99.0"):
        with pytest.raises(VbenchError, match="the output holds nothing at"):
            Reading(json=path).value(output)


def test_regular_expressions() -> None:
    output = Output(b"events per second: 12.5\nevents per second: 99\n")
    assert Reading(regex=r"^events per second:\s+([0-9.]+)$", scale=2).value(output) == 25
    for pattern in ("latency: (.*)", "events (per)", r"(99x)?events"):
        with pytest.raises(VbenchError):
            Reading(regex=pattern).value(output)


@given(st.floats(), st.floats(min_value=1e-12, max_value=1e12))
def test_a_value_is_finite_and_positive_or_an_error(number: float, scale: float) -> None:
    output = Output(json.dumps({"v": number}).encode())
    reading = Reading(json="v", scale=scale)
    expected = number * scale
    if math.isfinite(expected) and expected > 0:
        assert reading.value(output) == expected
    else:
        with pytest.raises(VbenchError):
            reading.value(output)


@given(st.binary())
def test_any_output_is_a_value_or_a_clear_error(stdout: bytes) -> None:
    for reading in (Reading(json="a.0"), Reading(regex="([0-9.e]+)")):
        with contextlib.suppress(VbenchError):
            assert reading.value(Output(stdout)) > 0


# --- servers -------------------------------------------------------------------------------------------------


def test_servers_that_choose_a_port_and_servers_that_are_told() -> None:
    found = load_workloads()
    chooses, told = found["net-latency"].server, found["net-iperf3"].server
    assert chooses is not None
    assert told is not None
    assert (chooses.picks_port, told.picks_port) == (True, False)
    assert chooses.port('{"port": 41') == 41
    assert chooses.port("") is None
    assert told.port("Server listening on 5\n") == 0


# --- calibration ---------------------------------------------------------------------------------------------


def size(**changes: Any) -> WorkSize:
    return WorkSize(**{"unit": "calls", "start": 10, "max": 10**9, **changes})


@given(st.floats(min_value=1e-9, max_value=1.0), st.floats(min_value=0.0, max_value=0.1))
def test_calibration_reaches_the_target(per_unit: float, constant: float) -> None:
    """Over nine decades of speed: near the target where a size can reach it, and in a few steps."""
    calls: list[int] = []

    def measure(work: int) -> float:
        calls.append(work)
        return constant + per_unit * work

    chosen = calibrate(measure, size(start=1))
    assert 1 <= chosen <= 10**9
    assert len(calls) <= 17
    assert max(calls) * per_unit <= max(1.0, per_unit)  # no step overshoots much
    assert measure(chosen) >= 0.2 or chosen == 10**9
    assert measure(chosen) <= 0.7 or chosen == 1


@given(st.floats(min_value=1e-9, max_value=0.1), st.floats(min_value=0.9, max_value=1.1))
def test_two_calibrations_arrive_at_the_same_size(per_unit: float, noise: float) -> None:
    """A size is a power of two, so a tenth more or less of time makes none or one step of difference."""
    first = calibrate(lambda work: per_unit * work, size(start=1))
    second = calibrate(lambda work: per_unit * noise * work, size(start=1))
    assert first.bit_count() == 1
    assert second in {first, 2 * first, first // 2}


def test_an_interruption_does_not_end_a_calibration_early() -> None:
    """Something else has the processor for half a second while a size is tried: the same size is chosen."""
    expected = calibrate(lambda work: 1e-6 * work, size(start=1))
    assert calibrate(lambda work: 1e-6 * work, size(start=1), counted=True) == expected
    for unlucky in range(8):
        calls = iter(range(100))

        def measure(work: int, calls: Iterator[int] = calls, unlucky: int = unlucky) -> float:
            return 1e-6 * work + 0.5 * (next(calls) == unlucky)

        assert calibrate(measure, size(start=1)) == expected


@pytest.mark.parametrize(
    ("per_unit", "limits", "expected"),
    [
        (1e-12, {"max": 1000}, 1000),
        (10.0, {"start": 3}, 1),
        (10.0, {"start": 5, "min": 5}, 5),
        (0.0, {"max": 12345}, 12345),
        (0.04, {"start": 10}, 8),
    ],
)
def test_calibration_keeps_its_limits(per_unit: float, limits: dict[str, int], expected: int) -> None:
    assert calibrate(lambda work: per_unit * work, size(**limits)) == expected
