"""A layer that needs an add-on, on the machine itself and in a guest; the capsule stays what it is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from vbench.capsule import add_on, capsule
from vbench.capsule.capsule import Capsule, verify_inside
from vbench.hosts.base import Process
from vbench.hosts.local import LocalHost
from vbench.layers import base
from vbench.layers.base import layer_classes
from vbench.layers.chroot import Chroot
from vbench.layers.environment import Site
from vbench.layers.environment import add_on as tree_of
from vbench.layers.stack import Stack, add_ons_of, open_stack
from vbench.technique import AddOn

from .conftest import SHAPE, a_guest


class Toy(Chroot):
    """A chroot that asks its add-on for a word before it starts."""

    name = "toy"

    def start(self, site: Site) -> AbstractContextManager[Process]:
        said = site.parent.run([f"{tree_of(site, 'toy')}/usr/bin/greet"]).text
        site.parent.put(said.encode(), f"{site.parent.scratch}/said")
        return super().start(site)


@pytest.fixture
def toy(built: Capsule, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> AddOn:
    """The layer among the known ones, its add-on built beside a link to the capsule."""
    monkeypatch.setenv("VBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache/capsules").mkdir(parents=True)
    (tmp_path / "cache/capsules" / built.directory.name).symlink_to(built.directory)
    (tmp_path / "greet").write_text("#!/bin/sh\necho hello\n")
    monkeypatch.setattr(
        Toy, "needs", AddOn("toy", files={"usr/bin/greet": tmp_path / "greet"}), raising=False
    )
    known = {**layer_classes(), "toy": Toy}
    for module in ("vbench.layers.base", "vbench.layers.stack"):
        monkeypatch.setattr(f"{module}.layer_classes", lambda: known)
    (wanted,) = (each for each in base.needed() if each.name == "toy")
    return wanted


@pytest.mark.parametrize("path", ["toy", f"{a_guest()}/toy"])
def test_an_add_on_reaches_the_parent(toy: AddOn, built: Capsule, path: str) -> None:
    stack = Stack.parse(path)
    assert add_ons_of([stack]) == {}
    part = add_on.build(toy)
    assert add_ons_of([stack]) == {"add_ons": {"toy": part.digest}}
    with open_stack(stack.prefix(stack.depth - 1), built, SHAPE) as parent:
        layer = Toy()
        with layer.open(parent, SHAPE) as host:
            assert parent.get(f"{parent.scratch}/said") == b"hello"
            assert host.run(["hostname"]).code == 0
            assert verify_inside(host) == verify_inside(LocalHost(payload=built.payload()))
        assert parent.run(["ls", parent.scratch]).text.split() in (["said"], ["lost+found", "said"])
    found = capsule.find()
    assert found is not None
    assert found.digest == built.digest
