"""What vbench writes into bundles is there in French, too: every sentence, from the functions that write them."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vbench.capsule.errata import ERRATA
from vbench.errors import BootError
from vbench.hosts.local import LocalHost
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.layers.base import Unavailable, make_layer
from vbench.observe import fairness, noise
from vbench.observe.fairness import unequal
from vbench.observe.machine import Told
from vbench.report import words
from vbench.stats import overhead
from vbench.stats.run import load

ENGLISH = re.compile(
    r"\b(the|of|its|is|are|not|in|with|by|from|was|does|and|there|seen|runs?|needs?|has|no|than|to|for)\b"
)
BUNDLES = Path(__file__).parents[2]

PLACED = Placement(1, 512, Disk(Medium.RAW_FILE, "virtio-blk", Cache.NONE), Network(Way.TAP, "virtio-net"))
BASE: dict[str, Any] = {
    "peer": "the machine",
    "placement": asdict(PLACED),
    "clocksource": "tsc",
    "kernel": "Linux 6.1.0",
    "cpu_flags": "fpu avx avx2 aes fma ssse3 vaes gfni sha_ni",
    "mitigation_mds": "Not affected",
    "huge_pages": "[always] madvise never",
    "files_digest": "f",
    "preemption": "PREEMPT_DYNAMIC",
    "timer_hz": "250",
    "seccomp": "none",
    "scratch_storage": "dm-0, not rotational, no model told, scheduler none",
}
OTHERS: tuple[dict[str, Any], ...] = (
    {"peer": "local/testbed/kvm"},
    {"placement": asdict(replace(PLACED, vcpus=2))},
    {"placement": asdict(replace(PLACED, memory_mib=None))},
    *({"placement": asdict(replace(PLACED, disk=Disk(medium)))} for medium in Medium),
    *({"placement": asdict(replace(PLACED, disk=Disk(Medium.RAW_FILE, "x", cache)))} for cache in Cache),
    *({"placement": asdict(replace(PLACED, network=Network(way, "x")))} for way in Way),
    {"placement": asdict(replace(PLACED, network=Network(Way.VETH)))},
    {"clocksource": "unavailable: no such file", "kernel": "Linux 6.2"},
    {"cpu_flags": f"{BASE['cpu_flags']} more"},
    {"cpu_flags": "fpu avx2"},
    {"cpu_flags": "fpu"},
    {"mitigation_mds": "Vulnerable, no microcode; SMT off"},
    {"mitigation_mds": "Mitigation: x"},
    {"huge_pages": "always [madvise] never"},
    {"huge_pages": "unavailable: no such file"},
    {"clock_offset_s": "+3600.12 within 0.020"},
    {"preemption": "none or voluntary"},
    {"timer_hz": "100"},
    {"seccomp": "a filter"},
    {"scratch_storage": "vdc, rotational, no model told, scheduler [mq-deadline] none"},
    {"files_digest": "0"},
)
CALM = noise.Reading(at=0, clock=5, steal=0, ticks=0, waited=0, swapped=7, throttled=0, mhz=2000)
BUSY = replace(CALM, at=9, clock=3605.5, steal=99, ticks=999, waited=8, swapped=99, throttled=3, mhz=1500)


def shown_in_french(text: str) -> None:
    both = words.term(text)
    assert both.fr != both.en, f"no French for: {text}"
    assert not (left := ENGLISH.findall(both.fr)), f"{left} in: {both.fr}"


def left_over(
    module: ModuleType, of: Callable[[ast.Call], bool], write: Callable[[], list[str]]
) -> list[str]:
    """Checks all that ``write`` writes; returns the calls of ``module`` that say something and were not made."""
    ran: set[int] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        if event == "line":
            ran.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        texts = write()
    finally:
        sys.settrace(before)
    for text in texts:
        shown_in_french(text)
    calls = [
        node
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
        if isinstance(node, ast.Call)
    ]
    return [
        ast.unparse(call)
        for call in calls
        if of(call) and ran.isdisjoint(range(call.lineno, (call.end_lineno or call.lineno) + 1))
    ]


def test_every_sentence_on_fairness() -> None:
    one = {**BASE, **{f"mitigation_{name}": "Not affected" for name in "abcde"}}
    other = {**one, **{key: "Vulnerable" for key in one if key.startswith("mitigation_")}}
    silent = {key: value for key, value in BASE.items() if not key.startswith("mitigation_")}

    def write() -> list[str]:
        pairs = [(BASE, {**BASE, **change}) for change in OTHERS]
        pairs += [(one, other), (BASE, silent), (silent, BASE)]
        told = [unequal({"local": base, "local/b": mine}, "local") for base, mine in pairs]
        assert all(told)
        return [finding.text for findings in told for finding in findings]

    assert left_over(fairness, lambda call: ast.unparse(call.func) == "Finding", write) == []


class Busy:
    """A machine on which everything goes on at once."""

    cpus = 2

    def tell(self, patterns: tuple[str, ...]) -> Told:
        governors = {
            f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_governor": name for n, name in enumerate("ab")
        }
        files = {"proc/loadavg": "99.00 1.00 1.00 1/2 3", **governors}
        return Told(0, 0, files, Counter({"linux.uml": 2, "firecracker": 1}))


def test_every_sentence_on_noise() -> None:
    def write() -> list[str]:
        busy = replace(BUSY, guests=Counter({"linux.uml": 2}))
        return [text for _, text in [*noise.before(Busy()), *noise.Watch(Busy(), CALM).look(busy)]]

    assert left_over(noise, lambda call: ast.unparse(call.func) == "found.append", write) == []


def test_every_reason_of_a_verdict() -> None:
    plain: dict[str, Any] = {
        "alien": False, "apart": False, "alone": False, "n": 9, "aa_floor": 0.01, "step": 0.0,
        "log": 0.5, "log_low": 0.4, "log_high": 0.6, "p_holm": 0.001,
    }  # fmt: skip
    odd: list[dict[str, Any]] = [
        {"alien": True}, {"apart": True}, {"alone": True}, {"n": 0}, {"n": 3}, {"log_low": np.nan},
        {"aa_floor": np.nan}, {"step": 0.7}, {"log_low": -0.1}, {"aa_floor": 2.0}, {"p_holm": 0.2}, {},
        {"log": -0.5, "log_low": -0.6, "log_high": -0.4},
    ]  # fmt: skip
    frame = pd.DataFrame([{**plain, **each} for each in odd])
    verdicts, whys = overhead._verdicts(frame, 0.95, 0.0)
    tree = ast.parse(Path(str(overhead.__file__)).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (ladder,) = (node.args[0] for node in calls if ast.unparse(node.func) == "first_that_holds")
    assert isinstance(ladder, ast.List)
    assert len({*whys}) == len(ladder.elts)  # each reason, one of them being none
    (flag,) = re.findall(r'artefact = "(.*)"', Path(str(overhead.__file__)).read_text())
    for text in {*verdicts, *whys, flag} - {""}:
        shown_in_french(str(text))


@pytest.mark.parametrize(
    "text",
    [
        "it was opened anew later, because local/uml has no /dev/net/tun (load the tun module)",
        "it was tried anew when the run was taken up again, because local: x ran longer than 9.5 s",
        "local/testbed did not come to rest",
        "the last 17 bytes of the journal are an unfinished sample and were left out",
        "/dev/kvm exists on local and its processor shows neither vmx nor svm, but a kernel booting under it only got "
        "to 0.25 s of its own time within 12 s (use a machine with hardware virtualization, or the testbed layer)",
        "workload app-redis: latency: nothing in the output matches 'x'",
        "local/uml: x -y gave exit code 3: oh",
    ],
)
def test_what_a_run_notes_of_itself(text: str) -> None:
    shown_in_french(text)


def test_what_a_capsule_says_of_itself() -> None:
    drifted = (
        "nginx: not locked",
        "zlib1g: missing",
        "x: 1 here, 2 locked",
        "x: 1 has other bytes than the locked one",
    )
    for text in (*drifted, *(each.title for each in ERRATA)):
        shown_in_french(text)


@pytest.mark.parametrize("layer", ["xen", "pv", "qemu"])
def test_why_a_layer_does_not_open(layer: str) -> None:
    answer = make_layer(layer).probe(LocalHost())
    if isinstance(answer, Unavailable):
        shown_in_french(answer.reason)


def test_a_failed_start_is_told_in_french_and_the_console_as_it_was() -> None:
    told = words.term(
        str(BootError("local/uml ended while starting, with exit code 1", "the end of it\nis here"))
    )
    first, second, *console = told.fr.splitlines()
    assert first == "local/uml a pris fin au démarrage, avec le code de sortie 1"
    assert second == "  fin de sa console\N{NO-BREAK SPACE}:"
    assert console == ["    | the end of it", "    | is here"]


def test_what_is_filled_in_is_french_too() -> None:
    disk = "disk path and cache mode: virtio-blk on a raw file, cache=none; in local: unknown"
    assert words.term(disk).fr.replace("\N{NO-BREAK SPACE}", " ") == (
        "accès au disque et cache : virtio-blk sur un fichier brut, cache=none ; dans local : inconnu"
    )
    assert "diffère de +3600,1 s" in words.term("its time of day is +3600.1 s from the harness's").fr
    assert "Linux 6.1" in words.term("kernel: Linux 6.1; in local: Linux 6.2").fr


@pytest.mark.parametrize(
    "text", ["memory: 1; in <b>: 2", "a (b (c", "x" * 5000, "memory: " + "; in x: " * 500]
)
def test_a_strangers_text_is_neither_markup_nor_work(text: str) -> None:
    assert "<b>" not in words.term(text).fr


@pytest.mark.parametrize("bundle", ["results/reference-testbed", "notebooks/busy-machine"])
def test_all_that_the_bundles_that_come_along_say(bundle: str) -> None:
    info = load(BUNDLES / bundle).info
    for text in {note.text for note in info.notes} | {failure.reason for failure in info.failures}:
        shown_in_french(text)
