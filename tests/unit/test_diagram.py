"""Which boxes a stack is made of, and their drawing as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import info, record
from typer.testing import CliRunner

from vbench.bundle.store import read_info
from vbench.cli import main as cli
from vbench.layers.base import layer_classes
from vbench.plot import diagram
from vbench.technique import FAMILIES, Picture, Technique

PATHS = (
    "local", "local/chroot", "local/bubblewrap", "local/uml", "local/uml/chroot", "local/qemu", "local/kvm",
    "local/testbed", "local/testbed/xen", "local/testbed/xen/pv", "local/testbed/kvm/bubblewrap",
)  # fmt: skip


def spine(box: diagram.Box, stack: str) -> list[str]:
    """Labels from the hardware up to the applications of a stack."""
    if box.stack == stack:
        return [box.label]
    for child in box.on:
        if found := spine(child, stack):
            return [box.label, *found]
    return []


def test_every_layer_of_ours_says_how_it_is_drawn() -> None:
    for layer in layer_classes().values():
        assert layer.picture is not None or not layer.__module__.startswith("vbench.")
    assert FAMILIES.keys() == {*Technique}


def test_a_layer_s_own_picture_goes_with_the_bundle(tmp_path: Path) -> None:
    """Where the layer is not installed, it is drawn as it was where it was measured."""
    mine = Picture("on", (("hypervisor", "Toy", "runs {}"), ("kernel", "Toy's kernel", "")))
    pictures = read_info(record(tmp_path, info(pictures={"toy": mine}), finish=False)).pictures
    boxes = diagram.of("local/toy", {"local/toy": "isolator"}, None, pictures).walk()
    assert [(box.kind, box.label, box.note) for box in boxes][2:4] == [
        ("hypervisor", "Toy", "runs toy"),
        ("kernel", "Toy's kernel", ""),
    ]
    (machine,) = diagram.together(["local", "local/toy"], None, None, pictures)
    assert "Toy" in [box.label for box in machine.walk()]


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("local", ["Hardware", "Host's kernel", "Applications"]),
        ("local/chroot", ["Hardware", "Host's kernel", "chroot", "Applications"]),
        ("local/uml/chroot", ["Hardware", "Host's kernel", "User Mode Linux", "chroot", "Applications"]),
        ("local/qemu", ["Hardware", "Host's kernel", "QEMU", "Guest kernel", "Applications"]),
        ("local/kvm", ["Hardware", "Host's kernel", "Guest kernel", "Applications"]),
        ("local/testbed/xen",
         ["Hardware", "Host's kernel", "QEMU", "Emulated PC", "Xen", "Testbed's kernel", "Applications"]),
        ("local/testbed/xen/pv",
         ["Hardware", "Host's kernel", "QEMU", "Emulated PC", "Xen", "Guest kernel", "Applications"]),
        ("local/xen/pvh", ["Hardware", "Xen", "Guest kernel", "Applications"]),
        ("local/xen/hvm", ["Hardware", "Xen", "Guest kernel", "Applications"]),
        ("local/xen/pv", ["Hardware", "Xen", "Guest kernel", "Applications"]),
    ],
)  # fmt: skip
def test_boxes_from_the_hardware_up(path: str, labels: list[str]) -> None:
    assert spine(diagram.of(path), path) == labels


def test_a_type_1_hypervisor_sits_under_the_kernel_and_a_guest_beside_dom0() -> None:
    xen = next(box for box in diagram.of("local/testbed/xen/pv").walk() if box.label == "Xen")
    assert [(box.label, box.note) for box in xen.on] == [
        ("Testbed's kernel", "dom0"),
        ("Guest kernel", "domU, paravirtualized"),
    ]
    assert [box.label for box in xen.on[0].on] == ["Tools"]


def test_an_isolator_has_no_kernel_and_kvm_makes_the_host_s_one_a_hypervisor() -> None:
    assert [box.kind for box in diagram.of("local/bubblewrap").walk()].count("kernel") == 1
    kinds = {box.label: box.kind for box in diagram.of("local/kvm").walk()}
    assert kinds["Host's kernel"] == "hypervisor"
    assert kinds["Guest kernel"] == "kernel"
    assert {box.label: box.kind for box in diagram.of("local/qemu").walk()}["Host's kernel"] == "kernel"


@pytest.mark.parametrize(("technique", "kinds"), [
    ("isolator", ["hardware", "kernel", "isolator", "applications"]),
    ("user-space kernel", ["hardware", "kernel", "kernel", "applications"]),
    ("type 2", ["hardware", "kernel", "hypervisor", "kernel", "applications"]),
    ("something new", ["hardware", "kernel", "hypervisor", "applications"]),
])  # fmt: skip
def test_a_layer_of_another_distribution_is_drawn_by_its_technique(technique: str, kinds: list[str]) -> None:
    box = diagram.of("a@b/other", {"a@b/other": technique})
    assert [each.kind for each in box.walk()] == kinds
    assert any("other" in each.label + each.note for each in box.walk())
    assert box.note == "a@b"


@pytest.mark.parametrize(
    ("technique", "labels"),
    [
        ("none", ["Hardware", "Host's kernel"]),
        ("type 1", ["Hardware", "guest", "Guest kernel"]),
        ("paravirtualization", ["Hardware", "guest", "Guest kernel"]),
        ("type 2", ["Hardware", "Host's kernel", "guest", "Guest kernel"]),
        ("user-space kernel", ["Hardware", "Host's kernel", "guest"]),
        ("isolator", ["Hardware", "Host's kernel", "guest"]),
    ],
)
def test_a_machine_that_somebody_else_has_set_up_is_drawn_by_its_technique(
    technique: str, labels: list[str]
) -> None:
    alone = diagram.of("guest", {"guest": technique})
    assert spine(alone, "guest") == [*labels, "Applications"]
    inside = diagram.of("guest/chroot", {"guest": technique, "guest/chroot": "isolator"})
    assert spine(inside, "guest/chroot") == [*labels, "chroot", "Applications"]


def test_factors_stand_in_the_box_of_their_layer() -> None:
    factors = {"local/uml": "f1", "local/uml/chroot": "f2"}
    boxes = diagram.of("local/uml/chroot", None, factors).walk()
    assert {box.label: box.factor for box in boxes if box.factor} == {"User Mode Linux": "f1", "chroot": "f2"}
    text = diagram.text(diagram.of("local/uml/chroot", None, factors))
    assert any("User Mode Linux" in line and "f1" in line for line in text)


def test_environments_stand_side_by_side_on_what_they_share() -> None:
    (machine,) = diagram.together(["local", "local/uml", "local/uml", "local/uml/chroot", "local/kvm"])
    (kernel,) = machine.on
    assert [box.label for box in kernel.on] == [
        "Applications", "User Mode Linux", "User Mode Linux", "Guest kernel",
    ]  # fmt: skip
    assert kernel.note == "with KVM: the hypervisor"
    assert [box.label for box in kernel.on[1].on] == ["Applications", "chroot"]  # in the first of the two


def test_a_machine_booted_in_another_way_is_another_machine() -> None:
    (host,) = diagram.together(
        ["local/testbed", "local/testbed/xen", "local/testbed/xen/pv", "local/testbed/xen/pv"]
    )
    emulators = host.on[0].on
    assert [box.label for box in emulators] == ["QEMU", "QEMU"]
    xen = emulators[1].on[0].on[0]
    assert [box.label for box in xen.on] == ["Testbed's kernel", "Guest kernel", "Guest kernel"]
    assert [box.label for box in xen.on[0].on] == ["Applications", "Tools"]
    assert len(diagram.together(["local", "local/xen"])) == 2
    assert len(diagram.together(["local", "a@b"])) == 2


@pytest.mark.parametrize("path", PATHS)
def test_text_is_a_rectangle_with_closed_boxes(path: str) -> None:
    lines = diagram.text(diagram.of(path, None, {path: "x2"}), paths=True)
    assert len({len(line) for line in lines}) == 1
    text = "".join(lines)
    assert text.count("┌") == text.count("┐")
    assert text.count("└") == text.count("┘") <= text.count("┌")
    assert text.count("╭") == text.count("╯") == sum(b.kind == "isolator" for b in diagram.of(path).walk())
    labels = [each.label for each in reversed(diagram.of(path).walk())]
    assert all(label in text for label in labels)
    assert lines[-1].startswith("└")
    assert "Hardware" in lines[-2]
    assert diagram.plain(text).isascii()


def test_columns_stand_on_one_line_and_wrap() -> None:
    drawn = [((path, "second"), diagram.text(diagram.of(path))) for path in PATHS]
    lines = diagram.columns(drawn, 90)
    assert max(map(len, lines)) <= 90
    assert sum(line.count("Hardware") for line in lines) == len(PATHS)
    floors = [line for line in lines if "Hardware" in line]
    assert 1 < len(floors) < len(PATHS)
    below = lines[lines.index(floors[0]) + 2]
    assert below.split() == list(PATHS[: floors[0].count("Hardware")])


def test_the_command_draws_and_refuses() -> None:
    runner = CliRunner()
    done = runner.invoke(cli.app, ["layers", "uml", "local/testbed/xen"])
    assert done.exit_code == 0, done.output
    assert "User Mode Linux" in done.output
    assert "local/testbed/xen" in done.output
    json = runner.invoke(cli.app, ["layers", "uml", "--json"])
    assert '"label": "User Mode Linux"' in json.output
    assert runner.invoke(cli.app, ["layers"]).output.count(" isolator ") == 7
    assert "kvm:machine=q35|microvm" in runner.invoke(cli.app, ["layers", "kvm"]).output
    for words in (["layers", "nope"], ["layers", "--together"], ["layers", "uml", "-w", "x"]):
        assert runner.invoke(cli.app, words).exit_code != 0
