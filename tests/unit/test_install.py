"""What a machine lacks, and how that is said. Nothing is installed here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vbench.cli import install
from vbench.errors import VbenchError


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has nothing; programs can be put into the folder."""
    monkeypatch.setattr(install, "PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(install, "FILES", {str(tmp_path / "keyring"): "debian-archive-keyring"})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
        (folder / name).chmod(0o755)


def test_missing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install.missing() == ["debian-archive-keyring", "mmdebstrap", "tar", "util-linux"]
    assert set(install.missing(tests=True)) > {"gcc", "dropbear-bin", *install.missing()}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert set(install.missing()) > {"fakeroot", "uidmap"}


def test_nothing_missing(bare: Path) -> None:
    add(bare, *install.NEEDED)
    (bare / "keyring").touch()
    assert install.missing() == []
    said: list[str] = []
    install.install_missing(said.append)
    assert said == []


def test_another_distribution(bare: Path) -> None:
    add(bare, "tar", "unshare", "setpriv")
    said: list[str] = []
    with pytest.raises(VbenchError) as caught:
        install.install_missing(said.append)
    assert caught.value.message == "missing: debian-archive-keyring, mmdebstrap"
    assert caught.value.hint == "install them with your package manager"
    assert said == []


def test_neither_root_nor_sudo(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(bare, *install.NEEDED, *install.WITHOUT_ROOT, "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(VbenchError) as caught:
        install.install_missing(print)
    assert caught.value.message == "missing: debian-archive-keyring"
    assert caught.value.hint == "as root: apt-get install -y --no-install-recommends debian-archive-keyring"


def test_a_failed_installation(bare: Path) -> None:
    add(bare, *install.NEEDED)
    (bare / "apt-get").write_text("#!/bin/sh\necho first >&2; echo 'no network' >&2; exit 100\n")
    (bare / "apt-get").chmod(0o755)
    said: list[str] = []
    with pytest.raises(VbenchError) as caught:
        install.install_missing(said.append)
    assert said == ["installing debian-archive-keyring"]
    assert caught.value.message == "apt-get update failed: no network"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("as root: apt-get install ")
