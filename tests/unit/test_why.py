"""What an operation is made of: reading the plugin's counts, and saying what they are."""

from __future__ import annotations

import json
import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.patches import Rectangle
from typer.testing import CliRunner

from vbench import figures, load, paths
from vbench.bundle.reasons import FILE, Reasons, keep_reasons, sentence
from vbench.bundle.verify import examine
from vbench.cli.main import app
from vbench.cli.why import _tell
from vbench.errors import Damaged, NotComparable, UsageError
from vbench.exact import boot
from vbench.exact.counts import ENTERED, Tally, entries, tally
from vbench.harness.why import _operations, countable
from vbench.layers.stack import Stack
from vbench.plot.why import made_of
from vbench.report import render, summary_table
from vbench.terms import PLACES

SYMBOLS = """\
ffffffff81027e70 T xen_asm_exc_page_fault
ffffffff81c00be0 T asm_exc_page_fault
ffffffff81c00b20 T asm_exc_general_protection
ffffffff81c01650 T asm_exc_nmi
ffffffff81c00e40 T asm_common_interrupt
ffffffff81c00ef0 T asm_sysvec_apic_timer_interrupt
ffffffff81c00f00 T asm_sysvec_apic_timer_interrupt_end [vbench]
"""


def test_a_kernel_is_entered_where_its_symbols_say() -> None:
    assert entries(SYMBOLS)[:4] == [
        "fault=ffffffff81c00be0",
        "exception=ffffffff81c00b20",
        "interrupt=ffffffff81c00e40",
        "interrupt=ffffffff81c00ef0",
    ]


def names_in_c() -> list[str]:
    source = boot.WHY.sources["why.so"][0].read_text()
    (listed,) = re.findall(r"enum \{(.*?)\};", source, re.DOTALL)
    return [name.strip() for name in listed.split(",") if name.strip()]


def test_counts_are_read_in_the_order_of_the_plugin() -> None:
    """As many names on both sides, and those that sound alike at the same place."""
    names = names_in_c()
    with tally() as (counted, file):
        file.write_bytes(struct.pack(f"<{len(names) + 0x102}Q", *range(1, len(names) + 0x103)))
        found = counted.read()
    assert found["UML kernel"] == 1 + names.index("UML")
    assert found["page fault"] == 1 + names.index("FAULT")
    assert found["exit"] == 1 + names.index("EXITS")
    assert found["cache miss, level 2"] == 1 + names.index("CACHE2")
    assert found["exit: CPUID"] == 1 + names.index("REASONS") + 0x72
    assert found["exit: nested page fault"] == 1 + names.index("REASONS") + 0x100
    assert found["user"] == 1 + names.index("USER") - found["guest user"]


def test_a_guests_instructions_are_not_its_hosts_as_well(tmp_path: Path) -> None:
    file = tmp_path / "counts"
    file.write_bytes(struct.pack("<6Q", 100, 0, 1000, 0, 30, 400))
    found = Tally(file).read()
    assert {place: found[place] for place in PLACES if found[place]} == {
        "user": 70, "kernel": 600, "guest user": 30, "guest kernel": 400,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stdout", "operations"),
    [
        (b'{"name": "nullcall", "batches": [1, 2, 3, 4, 5]}', 5 * 800 + 101),
        (b'{"name": "membw", "batches": [1, 2, 3]}', 3 * 800),
        (b'{"jobs": []}', 800),
        (b"not JSON", 800),
    ],
)
def test_the_probe_warms_up_by_an_eighth_of_its_work(stdout: bytes, operations: int) -> None:
    assert _operations(stdout, 800) == operations


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("uml", "it is not on the testbed"),
        ("testbed-vt/kvm", "its emulator has no plugins"),
        ("testbed/kvm/gvisor:kvm", "cannot be told from kvm"),
        ("testbed/kvm:machine=microvm/kvm", "cannot be told from kvm:machine=microvm"),
    ],
)
def test_what_cannot_be_counted_is_refused(path: str, why: str) -> None:
    with pytest.raises(NotComparable, match=re.escape(why)):
        countable(Stack.parse(path))


def of(stack: str, **counts: float) -> Reasons:
    named = {name.replace("_", " "): count for name, count in counts.items()}
    return Reasons(stack, "os-forkexec", 40, named, "time", "us", 1052.8)


BARE = of("local/testbed", user=15_000.0, kernel=510_000.0)


def test_the_sentence_says_where_the_added_ones_are() -> None:
    xen = of("local/testbed/xen/pv", user=15_000.0, kernel=730_000.0, Xen=950_000.0, hypercall=372.3)
    assert sentence([BARE, xen]) == (
        "os-forkexec in local/testbed/xen/pv: 1,695,000 instructions against 525,000, +1,170,000 (950,000 in Xen and"
        " 220,000 in the kernel); 372.3 hypercalls."
    )


def test_beside_a_guest_they_are_in_its_host() -> None:
    counts = {"exit": 36.0, "exit: CPUID": 35.0, "exit: interrupt": 1.0, "guest kernel": 510_000.0}
    kvm = Reasons(
        "local/testbed/kvm", "os-forkexec", 40, {"kernel": 107_000.0, **counts}, "time", "us", 1283.6
    )
    said = sentence([BARE, kvm])
    assert "(107,000 in the host's kernel); 36.0 exits (35.0 by CPUID)." in said


def test_the_figure_stacks_what_was_counted() -> None:
    figure = made_of([BARE, of("local/testbed/uml", user=20_000.0, kernel=600_000.0, UML_kernel=5.0)])
    axes = figure.axes[0]
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    widths = sorted(bar.get_width() for bar in bars if bar.get_width())
    assert widths == [15_000.0, 20_000.0, 510_000.0, 600_000.0]
    assert "620,005" in {text.get_text() for text in axes.texts}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["uml", "os-nullcall"], "it is not on the testbed"),
        (["testbed/kvm", "os-nulcall"], "there is no workload 'os-nulcall'"),
        (["testbed/kvm", "os-nullcall", "--figure", "x.doc"], "a figure is a .png, .svg or .pdf file"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["why", *argv])
    assert said in str(result.exception)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a cell of the testbed."""
    return Path(shutil.copytree(paths.reference_bundle(), tmp_path / "bundle"))


def counted(stack: str, number: float, **counts: float) -> Reasons:
    named = {name.replace("_", " "): count for name, count in counts.items()}
    return Reasons(stack, "os-forkexec", 40, {"kernel": number, **named}, "time", "us", 1.0)


def test_what_was_counted_last_of_a_cell_is_kept(bundle: Path) -> None:
    keep_reasons(bundle, [counted("local/testbed", 1.0), counted("local/testbed/kvm", 2.0)])
    keep_reasons(bundle, [counted("local/testbed/kvm", 3.0)])
    assert {key[0]: each.counts["kernel"] for key, each in load(bundle).reasons.items()} == {
        "local/testbed": 1.0,
        "local/testbed/kvm": 3.0,
    }
    assert examine(bundle) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "why.json: it is no JSON: Invalid JSON"),
        ('[{"stack": "x"}]', "why.json: 0.workload is {'stack': 'x'}: Field required"),
        ('[{"stack": 1}]', "why.json: 0.stack is 1: Input should be a valid string"),
    ],
)
def test_a_damaged_file_is_found(bundle: Path, text: str, said: str) -> None:
    (bundle / FILE).write_text(text)
    (problem,) = examine(bundle)
    assert said in str(problem)
    with pytest.raises(Damaged, match=r"why\.json"):
        summary_table(load(bundle))


def test_a_report_says_it_at_the_cell_in_both_languages(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vbench.report.pictures.FIGURES", {})  # they have tests of their own, and take long
    keep_reasons(
        bundle,
        [
            counted("local/testbed", 528_000.0),
            counted("local/testbed/xen/pv", 750_000.0, Xen=950_000.0, hypercall=372.3),
        ],
    )
    run = load(bundle)
    with_it = [row for row in summary_table(run) if row["made_of"]]
    assert [(row["stack"], row["workload"]) for row in with_it] == [("local/testbed/xen/pv", "os-forkexec")]
    page = render(run)
    assert (
        "1,700,000 instructions against 528,000: 950,000 in Xen, 222,000 in the kernel, 372.3 hypercalls"
        in page
    )
    assert "950\N{NARROW NO-BREAK SPACE}000 dans Xen" in page


def test_a_figure_shows_it_beside_its_baseline(bundle: Path) -> None:
    with pytest.raises(UsageError, match="holds no count of what an operation is made of"):
        figures.draw(load(bundle), "made-of")
    for stack in ("local/testbed/uml", "local/testbed", "local/testbed/kvm"):
        keep_reasons(bundle, [counted(stack, 1000.0)])
    run = load(bundle)

    def shown(stack: str | None = None) -> list[str]:
        figure = figures.draw(run, "made-of", workload="os-forkexec", stack=stack)
        figure.draw_without_rendering()
        return [text.get_text() for text in figure.axes[0].get_yticklabels()]

    assert shown() == ["local/testbed", "local/testbed/uml", "local/testbed/kvm"]
    assert shown(stack="local/testbed/kvm") == ["local/testbed", "local/testbed/kvm"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["testbed/gvisor", "os-nullcall"], "has no stack local/testbed/gvisor"),
        (["testbed/kvm", "life-idle"], "has no workload life-idle"),
    ],
)
def test_only_a_bundles_own_cells_are_added(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    info = json.loads((bundle / "run.json").read_text())
    here = type("Here", (), {"digest": info["capsule"]["digest"]})
    monkeypatch.setattr("vbench.capsule.capsule.require", lambda *_: here)
    result = CliRunner().invoke(app, ["why", *argv, "--into", str(bundle)])
    assert said in str(result.exception)


def test_what_could_not_be_counted_is_not_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    uml = replace(of("local/testbed/uml", user=90.0, kernel=910.0), unseen=ENTERED)
    _tell([replace(BARE, counts={**BARE.counts, "page fault": 37.0}), uml])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("page fault"))
    assert row.split() == ["page", "fault", "37.00", "n/a", "n/a"]


def test_what_is_counted_beside_the_figure_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """As a page fault's page is given back after the clock has stopped."""
    _tell(
        [
            replace(of("local/testbed", kernel=6_000.0), value=10.0),
            replace(of("x", kernel=6_050.0), value=11.0),
        ]
    )
    assert "takes 10% more than that" in capsys.readouterr().out
