"""Add-ons: parts beside the capsule, of files here, since packages need a Debian mirror."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vbench.capsule import add_on, capsule, made
from vbench.cli.main import app
from vbench.errors import UsageError
from vbench.hosts.base import Payload
from vbench.hosts.local import LocalHost
from vbench.layers.base import Unavailable
from vbench.layers.chroot import Chroot
from vbench.technique import AddOn


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddOn:
    monkeypatch.setenv("VBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "greet").write_text("#!/bin/sh\necho hello\n")
    return AddOn("toy", files={"usr/bin/greet": tmp_path / "greet"})


def test_built_once_with_a_digest_of_its_own(wanted: AddOn, tmp_path: Path) -> None:
    before = capsule.recipe().digest()
    assert add_on.find(wanted) is None
    assert add_on.parts([wanted]) == {}
    said: list[str] = []
    first, again = add_on.build(wanted, said.append), add_on.build(wanted, said.append)
    assert first == again
    assert said == ["building the add-on toy"]
    part = add_on.parts([wanted])["toy"]
    assert part.digest == first.digest
    assert LocalHost().run([f"{part.directory}/tree/usr/bin/greet"]).text == "hello"
    assert {path.name for path in Path(part.directory).iterdir()} == {"add-on.json", "add-on.tar", "tree"}
    assert capsule.recipe().digest() == before
    assert capsule.find() is None  # none of this is taken for a capsule
    # What is wanted has changed: what is there is not it.
    (tmp_path / "greet").write_text("#!/bin/sh\necho hi\n")
    assert add_on.find(wanted) is None
    assert add_on.build(wanted).digest != first.digest
    capsule.remove(partial_only=False)
    assert add_on.find(wanted) is None


def test_its_lock_says_what_differs(wanted: AddOn, tmp_path: Path) -> None:
    lock = tmp_path / "toy.lock"
    locked = replace(wanted, lock=lock)
    lock.write_text(
        json.dumps({"digest": "x", "packages": [{"name": "gone", "version": "1", "sha256": "a"}]})
    )
    built = add_on.build(locked)
    assert built.drift == ["gone: missing"]
    add_on.write_lock(locked, built)
    assert json.loads(lock.read_text()) == {"digest": built.digest, "packages": []}


def test_packages_are_named_by_their_archives() -> None:
    listing = "aa  libc6_2.36-9+deb12u14_amd64.deb\nbb  bc_1%3a3.24-1.1_amd64.deb\n"
    assert made.packages(listing) == [
        {"name": "bc", "version": "1:3.24-1.1", "sha256": "bb"},
        {"name": "libc6", "version": "2.36-9+deb12u14", "sha256": "aa"},
    ]


def test_a_layer_without_its_add_on_says_so(wanted: AddOn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chroot, "needs", wanted)
    payload = Payload("/nowhere", "d" * 64, {}, {})
    answer = Chroot().lacks(LocalHost(payload=payload))
    assert answer == Unavailable("the add-on toy has not been built here", "vbench capsule build toy")
    add_on.build(wanted)
    held = replace(payload, add_ons=add_on.parts([wanted]))
    assert Chroot().lacks(LocalHost(payload=held)) is None


def test_a_name_that_is_none_is_said_before_anything_is_built(wanted: AddOn, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["capsule", "build", "oci", "ocy"])
    assert isinstance(done.exception, UsageError)
    assert done.exception.message == "there is no add-on 'ocy'"
    assert "oci" in (done.exception.hint or "")
    assert not (tmp_path / "cache").exists()


def test_what_the_capsule_has_is_left_out(tmp_path: Path) -> None:
    """A file with the same bytes, at its place in a merged /usr; a hard link stands by itself."""
    base, archive = tmp_path / "base", tmp_path / "add-on.tar"
    (base / "usr/bin").mkdir(parents=True)
    (base / "usr/bin/same").write_text("same")
    (base / "usr/bin/other").write_text("another version")
    with tarfile.open(tmp_path / "packages.tar", "w") as out:
        for name, data in (("bin/same", b"same"), ("bin/other", b"new"), ("lib/x/file", b"more")):
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("./bin/linked")
        link.type, link.linkname = tarfile.LNKTYPE, "./bin/same"
        out.addfile(link)
    with tarfile.open(tmp_path / "packages.tar") as tar, tarfile.open(archive, "w") as out:
        for member in tar.getmembers():
            add_on._take(out, tar, member, base)
    with tarfile.open(archive) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert held == {"usr/bin/other": b"new", "usr/lib/x/file": b"more", "usr/bin/linked": b"same"}
