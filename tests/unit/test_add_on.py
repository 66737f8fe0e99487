"""Add-ons: parts beside the capsule, of files here, since packages need a Debian mirror."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from vbench.capsule import add_on, capsule, made
from vbench.cli.main import app
from vbench.errors import UsageError, VbenchError
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


def test_what_another_version_made_alike_stays_where_it_is(wanted: AddOn) -> None:
    """Machines may be running from it."""
    first = add_on.build(wanted)
    folder = Path(add_on.parts([wanted])["toy"].directory)
    (folder / "initrd").write_text("made beside it")
    told = json.loads((folder / "add-on.json").read_text())
    (folder / "add-on.json").write_text(json.dumps({**told, "recipe": "of another version"}))
    assert add_on.build(wanted) == first
    assert (folder / "initrd").exists()


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


@pytest.fixture
def scripted(wanted: AddOn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddOn:
    """An add-on that a script makes, beside a capsule of which only the kernel's release is there."""
    (tmp_path / "capsule/tree/lib/modules/6.1.0-1").mkdir(parents=True)
    held = SimpleNamespace(directory=tmp_path / "capsule")
    monkeypatch.setattr(capsule, "require", lambda: held)
    (tmp_path / "make.sh").write_text(
        'set -e\nmkdir "$2/made"\nmount -t tmpfs none /mnt\nls "$1/lib/modules" > "$2/made/release"\n'
        'cp "$3" "$2/made/given"\nln -s given "$2/made/link"\n'
    )
    return replace(wanted, files={}, script=(tmp_path / "make.sh", tmp_path / "greet"))


def test_a_script_makes_it(scripted: AddOn, tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    built = add_on.build(scripted)
    tree = Path(add_on.parts([scripted])["toy"].directory) / "tree"
    assert (tree / "release").read_text() == "6.1.0-1\n"
    assert (tree / "link").readlink() == Path("given")
    assert (tree / "given").read_bytes() == (tmp_path / "greet").read_bytes()
    assert {path.name for path in tree.parent.iterdir()} == {"add-on.json", "add-on.tar", "tree"}
    assert Path("/proc/self/mountinfo").read_text() == before
    shutil.rmtree(tree.parent)
    assert add_on.build(scripted).digest == built.digest
    (tmp_path / "greet").write_text("another\n")
    assert add_on.find(scripted) is None  # what the script is given is part of what is wanted
    (tmp_path / "make.sh").write_text("echo no such thing >&2\nexit 3\n")
    with pytest.raises(VbenchError, match="the add-on toy cannot be made:\nno such thing"):
        add_on.build(scripted)


def test_material_that_cannot_be_had_is_an_error_of_its_own(
    scripted: AddOn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that tests go on without it, and with nothing else that fails."""
    (tmp_path / "mmdebstrap").write_text("#!/bin/sh\necho there is no {release}: $* >&2\nexit 7\n")
    (tmp_path / "mmdebstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    wanted = replace(scripted, material={"moving/contrib": ("box", "headers-{release}")})
    with pytest.raises(made.MaterialUnavailable, match=r"headers-6\.1\.0-1"):
        add_on.build(wanted)


def test_material_may_be_for_another_processor_and_of_more_suites(
    scripted: AddOn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mmdebstrap").write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\nfor each; do case $each in *.tar) out=$each ;; esac; done\n'
        f"cd {tmp_path} && mkdir -p dev && echo 'aa  box_1_any.deb' > add-on-packages\n"
        'exec tar -cf "$out" ./add-on-packages ./dev\n'
    )
    (tmp_path / "mmdebstrap").chmod(0o755)
    (tmp_path / "make.sh").write_text('mkdir "$2/made"\nls "$2" > "$2/made/suites"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(add_on, "_compress", lambda archive: None)  # there is no gzip in that capsule
    material = {"old:ppc64el": ("box", "new/old-backports"), "old": ("box",)}
    built = add_on.build(replace(scripted, material=material))
    assert [package["name"] for package in built.packages] == ["box", "box:ppc64el"]
    tree = Path(next((tmp_path / "cache").glob("capsules/add-on-toy-*/tree")))
    assert (tree / "suites").read_text().split() == ["made", "old", "old-ppc64el", "probe"]
    here, other = (tmp_path / "asked").read_text().splitlines()
    assert "--architectures=amd64" in here
    assert "backports" not in here
    assert "--architectures=ppc64el" in other
    assert "old-backports main" in other


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
