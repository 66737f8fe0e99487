"""The capsule: its parts against independent readers, its digest, and builders that collide or die."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from vbench import paths
from vbench.capsule import capsule, rootfs, transfer
from vbench.errors import DigestMismatch, UsageError, VbenchError
from vbench.hosts.base import Payload, Program
from vbench.hosts.local import LocalHost

Member = tuple[str, bytes, int, int]
"""Name, content, mode, owner."""
MEMBERS: list[Member] = [("./a", b"alpha", 0o644, 0), ("./b", b"beta", 0o755, 0), ("./c", b"", 0o600, 7)]


# --- the parts that vbench makes itself


@pytest.mark.skipif(shutil.which("cpio") is None and shutil.which("busybox") is None, reason="no cpio here")
def test_newc_is_read_by_cpio(tmp_path: Path) -> None:
    content = {"init": b"#!/bin/sh\n", "bin/odd": bytes(range(256)) * 5, "empty": b"", "bin/x": b"1"}
    data = rootfs.newc([("bin", None), *content.items()])
    cpio = ["cpio"] if shutil.which("cpio") else ["busybox", "cpio"]
    subprocess.run([*cpio, "-i"], input=data, cwd=tmp_path, check=True, capture_output=True)
    assert {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    } == content
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bin").is_dir()


def test_newc_by_its_definition() -> None:
    data, found, at = rootfs.newc([("d", None), ("d/f", b"12345"), ("g", b"")]), {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        field = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, named = field[1], field[6], field[11]
        name = data[at + 110 : at + 110 + named]
        assert name.endswith(b"\0")
        at = (at + 110 + named + 3) // 4 * 4
        found[name[:-1].decode()] = (mode, data[at : at + size])
        at = (at + size + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            break
    assert at == len(data)
    assert found.pop("TRAILER!!!") == (0o100755, b"")
    assert found == {"d": (0o040755, b""), "d/f": (0o100755, b"12345"), "g": (0o100755, b"")}


def test_modules_load_after_what_they_need() -> None:
    dep = (
        "kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2.ko\n"
        "kernel/fs/jbd2.ko:\nkernel/lib/crc16.ko:\nkernel/virtio/virtio_ring.ko:\n"
        "kernel/virtio/virtio.ko: kernel/virtio/virtio_ring.ko\n"
        "kernel/block/virtio_blk.ko: kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko\n"
        "kernel/net/unwanted.ko: kernel/lib/crc16.ko\n"
    )
    order = rootfs.load_order(dep, ["virtio-blk", "ext4", "virtio"])
    needs = {line.split(":")[0]: line.split(":")[1].split() for line in dep.splitlines()}
    assert len(order) == len(set(order)) == 6
    for number, module in enumerate(order):
        assert set(needs[module]) <= set(order[:number])
    assert "kernel/net/unwanted.ko" not in order


def test_kernel_is_unpacked() -> None:
    kernel = b"\x7fELF" + random.Random(1).randbytes(100_000)
    image = b"MZ boot code" + lzma.compress(kernel, check=lzma.CHECK_CRC32) + b"\x12\x34 size and padding"
    assert rootfs.unpack_kernel(image) == kernel
    with pytest.raises(VbenchError, match="not compressed with xz"):
        rootfs.unpack_kernel(b"MZ" + kernel)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_the_builder_mounts_is_seen_by_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so cannot be left behind, either."""
    builder = tmp_path / "mmdebstrap"
    builder.write_text(
        '#!/bin/sh\nmount -t tmpfs none "$1" && touch "$1/made" && cat /proc/self/mountinfo >&2\nexit 7\n'
    )
    builder.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(VbenchError, match=f"could not build a tree:\n[^~]* {target} .* tmpfs"):
        rootfs.mmdebstrap("a tree", [str(target)])
    assert not list(target.iterdir())
    assert str(target) not in Path("/proc/self/mountinfo").read_text()


# --- the digest


def tar(target: Path, members: list[Member], *, mtime: int = 0) -> Path:
    with tarfile.open(target, "w") as out:
        for name, content, mode, owner in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.mtime = len(content), mode, owner, mtime
            out.addfile(info, io.BytesIO(content))
    return target


def test_digest_is_blind_to_order_and_times(tmp_path: Path) -> None:
    digest = rootfs.content_digest(tar(tmp_path / "1", MEMBERS))
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert rootfs.content_digest(tar(tmp_path / "2", MEMBERS[::-1], mtime=99)) == digest


@pytest.mark.parametrize(
    "changed",
    [
        ("./b", b"bete", 0o755, 0),
        ("./b", b"beta", 0o754, 0),
        ("./b", b"beta", 0o755, 1),
        ("./bb", b"beta", 0o755, 0),
    ],
    ids=["byte", "mode", "owner", "name"],
)
def test_digest_sees(tmp_path: Path, changed: Member) -> None:
    digest = rootfs.content_digest(tar(tmp_path / "1", MEMBERS))
    assert rootfs.content_digest(tar(tmp_path / "2", [MEMBERS[0], changed, MEMBERS[2]])) != digest


def test_digest_sees_links_and_devices(tmp_path: Path) -> None:
    def digest(kind: bytes, target: str, minor: int) -> str:
        info = tarfile.TarInfo("./x")
        info.type, info.linkname, info.devminor = kind, target, minor
        with tarfile.open(tmp_path / "t", "w") as out:
            out.addfile(info)
        return rootfs.content_digest(tmp_path / "t")

    seen = [digest(tarfile.SYMTYPE, "a", 0), digest(tarfile.SYMTYPE, "b", 0), digest(tarfile.LNKTYPE, "a", 0)]
    seen += [digest(tarfile.CHRTYPE, "", 1), digest(tarfile.CHRTYPE, "", 2), digest(tarfile.BLKTYPE, "", 1)]
    assert len(set(seen)) == 6


def test_recipe_digest_covers_every_source(tmp_path: Path) -> None:
    sources = tmp_path / "src"
    shutil.copytree(paths.workload_files() / "src", sources)
    before = rootfs.Recipe.load(sources).digest()
    assert before == rootfs.Recipe.load(paths.workload_files() / "src").digest()
    with sorted(sources.glob("*.c"))[0].open("a") as file:
        file.write("\n")
    assert rootfs.Recipe.load(sources).digest() != before


# --- the lock file


def test_drift_is_said_package_by_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = [
        {"name": "gone", "version": "1", "sha256": "a"},
        {"name": "moved", "version": "1", "sha256": "a"},
        {"name": "other", "version": "1", "sha256": "a"},
        {"name": "same", "version": "1", "sha256": "a"},
    ]
    here = [
        {"name": "moved", "version": "2", "sha256": "b"},
        {"name": "new", "version": "1", "sha256": "a"},
        {"name": "other", "version": "1", "sha256": "c"},
        {"name": "same", "version": "1", "sha256": "a"},
    ]
    lock = tmp_path / "lock"
    lock.write_text(json.dumps({"digest": "x", "packages": locked}))
    monkeypatch.setattr(capsule, "LOCK_FILE", lock)
    assert capsule.drift_from_lock(here) == [
        "gone: missing",
        "moved: 2 here, 1 locked",
        "new: not locked",
        "other: 1 has other bytes than the locked one",
    ]
    assert capsule.drift_from_lock(locked) == []


# --- what is about to run


@pytest.fixture
def held(tmp_path: Path) -> LocalHost:
    """The real local host with a payload of two files, whose sha256sum is this machine's."""
    tool = shutil.which("sha256sum")
    assert tool is not None
    tree = tmp_path / "capsule/tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(tool, tree / "bin/sha256sum")
    (tree / "bin/other").write_bytes(b"other")
    files = {
        f"bin/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in (tree / "bin").iterdir()
    }
    programs = {"sha256sum": Program("bin/sha256sum", dynamic=False)}
    return LocalHost(payload=Payload(str(tmp_path / "capsule"), "d" * 64, programs, files))


def test_verified_inside(held: LocalHost, tmp_path: Path) -> None:
    digest = capsule.verify_inside(held)
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert held.payload is not None
    shuffled = dict(sorted(held.payload.files.items(), reverse=True))
    assert capsule.verify_inside(LocalHost(payload=replace(held.payload, files=shuffled))) == digest


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_one_changed_byte_is_found(held: LocalHost, tmp_path: Path, damage: str) -> None:
    digest = capsule.verify_inside(held)
    other = tmp_path / "capsule/tree/bin/other"
    if damage == "flip":
        other.write_bytes(b"othes")
    else:
        other.unlink()
    with pytest.raises(DigestMismatch) as caught:
        capsule.verify_inside(held)
    shown = re.findall("[0-9a-f]{64}", caught.value.message)
    assert len(set(shown)) == 2
    assert shown[1] == digest
    assert caught.value.message.endswith("bin/other")
    assert "\n" not in caught.value.message


def test_nothing_to_verify() -> None:
    with pytest.raises(VbenchError, match="holds no capsule"):
        capsule.verify_inside(LocalHost())


# --- building, on a capsule of five programs


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "cache"
    monkeypatch.setenv("VBENCH_CACHE", str(home))
    sources = paths.workload_files() / "src"
    for module in (capsule, transfer):
        monkeypatch.setattr(module, "recipe", lambda: tiny.tiny_recipe(sources))
    return home


Builder = Callable[[float], "subprocess.Popen[str]"]


@pytest.fixture
def builder(archive: Path, cache: Path) -> Iterator[Builder]:
    """Starts builders in processes of their own, in one cache."""
    started: list[subprocess.Popen[str]] = []
    sources = paths.workload_files() / "src"

    def start(seconds: float) -> subprocess.Popen[str]:
        argv = [sys.executable, tiny.__file__, str(archive), str(sources), str(seconds)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            pass


@pytest.fixture
def built(whole: Path, cache: Path) -> capsule.Capsule:
    """The capsule in a cache of the test's own."""
    shutil.copytree(whole, cache, symlinks=True)
    return capsule.require()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_built_once(builder: Builder, cache: Path) -> None:
    out, _ = builder(0).communicate()
    built = capsule.require()
    assert out.splitlines()[-1] == f"capsule {built.directory}"
    assert contents(cache / "capsules") == {built.digest[:16]}
    assert contents(built.directory) == {"capsule.json", "rootfs.tar", "tree", "image"}
    assert built.digest == rootfs.content_digest(built.directory / "rootfs.tar")
    assert set(built.manifest.programs) == {"sha256sum", "true", "env", "mke2fs"}
    assert {"usr/bin/sha256sum", "usr/bin/true", rootfs.LOADER} & set(built.manifest.files)
    host = LocalHost(payload=built.payload())
    capsule.verify_inside(host)
    host.run(host.program("true"))
    assert "bootstrap" not in builder(0).communicate()[0]


def test_second_builder_waits_and_takes_the_first_one_s(builder: Builder, cache: Path) -> None:
    first = builder(1)
    while line(first) != "bootstrap":
        assert first.poll() is None
    second = builder(0)
    assert line(second) == "waiting for another build to end"
    assert capsule.find() is None
    ends = [process.communicate()[0].splitlines() for process in (first, second)]
    assert ends[0][-1] == ends[1][-1]
    assert "bootstrap" not in ends[1]


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_build_leaves_no_capsule(builder: Builder, cache: Path, sig: signal.Signals) -> None:
    process = builder(30)
    while line(process) != "bootstrap":
        assert process.poll() is None
    os.killpg(process.pid, sig)
    process.communicate()
    assert process.returncode != 0
    assert capsule.find() is None
    if sig == signal.SIGINT:
        assert contents(cache / "capsules") == set()
    builder(0).communicate()
    assert contents(cache / "capsules") == {capsule.require().digest[:16]}


def test_half_a_capsule_is_none(built: capsule.Capsule, cache: Path) -> None:
    built.directory.rename(cache / "capsules/.build-x")  # what a killed build or import leaves
    assert capsule.find() is None
    assert capsule.remove(partial_only=True) == [cache / "capsules/.build-x"]
    assert contents(cache / "capsules") == set()


@pytest.mark.parametrize("image", ["", "0" * 64])
def test_an_image_that_another_version_made_is_made_anew(
    built: capsule.Capsule, builder: Builder, cache: Path, image: str
) -> None:
    manifest = built.directory / "capsule.json"
    told = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps(told | {"image": image}))
    (built.directory / "image").unlink()
    assert capsule.find() is None
    with pytest.raises(VbenchError, match=r"the disk image of the capsule in .* was made by another version"):
        capsule.require()
    assert "bootstrap" not in builder(0).communicate()[0]
    assert json.loads(manifest.read_bytes()) == told
    assert (capsule.require().directory / "image").exists()


def test_removed(built: capsule.Capsule, cache: Path) -> None:
    assert capsule.remove(partial_only=True) == []
    assert capsule.remove(partial_only=False) == [built.directory]
    assert capsule.find() is None
    with pytest.raises(VbenchError, match="no capsule has been built"):
        capsule.require()


def test_damaged_manifest_is_no_capsule(built: capsule.Capsule, cache: Path) -> None:
    manifest = built.directory / "capsule.json"
    manifest.write_text(manifest.read_text()[:100])
    assert capsule.find() is None


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VBENCH_CACHE", str(tmp_path / "file/below"))
    with pytest.raises(VbenchError, match=r"cannot write to .*file/below") as caught:
        capsule.build()
    assert "VBENCH_CACHE" in (caught.value.hint or "")


# --- moving


def test_export_and_import(
    built: capsule.Capsule, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer.export(built, tmp_path / "file")
    monkeypatch.setenv("VBENCH_CACHE", str(tmp_path / "elsewhere"))
    assert capsule.find() is None
    time.sleep(1.1)  # files have whole seconds, and the image must not depend on them
    taken = transfer.import_(tmp_path / "file")
    assert taken.digest == built.digest
    assert taken.manifest == built.manifest
    for name in ("rootfs.tar", "tree/usr/bin/true", "image"):
        assert (taken.directory / name).read_bytes() == (built.directory / name).read_bytes()
    assert capsule.require().directory == taken.directory


def test_export_that_cannot_be_written(built: capsule.Capsule, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "file/below", tmp_path / "folder", tmp_path / "none/below"):
        with pytest.raises(VbenchError, match="cannot write"):
            transfer.export(built, target)
    assert (tmp_path / "file").read_text() == "mine"
    assert contents(tmp_path) == {"cache", "file", "folder"}


@pytest.mark.parametrize(
    "kind", ["missing", "text", "empty", "cut", "cut-gz", "no-manifest", "root", "root-folder", "manifest"]
)
def test_import_of_garbage(built: capsule.Capsule, cache: Path, tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole"
    transfer.export(built, whole)
    file = tmp_path / "file"
    manifest = (built.directory / "capsule.json").read_bytes()
    root = (built.directory / "rootfs.tar").read_bytes()
    if kind == "text":
        file.write_text("not a capsule\n" * 1000)
    elif kind == "empty":
        file.touch()
    elif kind == "cut":
        file.write_bytes(whole.read_bytes()[: len(root) // 2])
    elif kind == "cut-gz":
        with tarfile.open(file, "w:gz") as out:
            out.add(built.directory / "capsule.json", "capsule.json")
            out.add(built.directory / "rootfs.tar", "rootfs.tar")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind == "no-manifest":
        tar(file, [("rootfs.tar", root, 0o644, 0)])
    elif kind == "root":
        tar(file, [("capsule.json", manifest, 0o644, 0), ("rootfs.tar", b"garbage" * 100, 0o644, 0)])
    elif kind == "root-folder":
        tar(file, [("capsule.json", manifest, 0o644, 0), ("rootfs.tar/x", b"garbage", 0o644, 0)])
    elif kind == "manifest":
        tar(file, [("capsule.json", b'{"digest": 1}', 0o644, 0), ("rootfs.tar", root, 0o644, 0)])
    with pytest.raises(UsageError, match=f"{file} is not an exported capsule") as caught:
        transfer.import_(file)
    assert "\n" not in caught.value.message
    assert contents(cache / "capsules") == {built.digest[:16]}


def test_import_of_other_bytes(built: capsule.Capsule, cache: Path, tmp_path: Path) -> None:
    root = bytearray((built.directory / "rootfs.tar").read_bytes())
    at = root.index(b"Package: tiny")
    root[at + 9] ^= 1
    manifest = (built.directory / "capsule.json").read_bytes()
    file = tar(tmp_path / "f", [("capsule.json", manifest, 0o644, 0), ("rootfs.tar", bytes(root), 0o644, 0)])
    with pytest.raises(DigestMismatch) as caught:
        transfer.import_(file)
    shown = re.findall("[0-9a-f]{64}", caught.value.message)
    assert shown[0] == built.digest != shown[1]
    assert contents(cache / "capsules") == {built.digest[:16]}


def test_import_of_another_version_s(built: capsule.Capsule, cache: Path, tmp_path: Path) -> None:
    manifest = built.manifest.model_copy(update={"recipe": "0" * 64}).model_dump_json().encode()
    root = (built.directory / "rootfs.tar").read_bytes()
    file = tar(tmp_path / "f", [("capsule.json", manifest, 0o644, 0), ("rootfs.tar", root, 0o644, 0)])
    with pytest.raises(VbenchError, match="another version of vbench"):
        transfer.import_(file)
