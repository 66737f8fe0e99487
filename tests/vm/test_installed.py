"""Container managers that are installed on a machine: a Debian with Podman and Docker, over SSH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, left, make_root, one, rows_of, vbench

from vbench.capsule import capsule

pytestmark = pytest.mark.skipif(
    not os.environ.get("VBENCH_EVERYWHERE"), reason="fetches 150 MB; VBENCH_EVERYWHERE=1 runs it"
)
_STATE = "find /dev/shm /etc /opt /var /root -xdev -newer /etc/ssh/key -not -path '*/.cache/vbench*' | sort"
"""What has been written on the machine since it was started; not the capsule that was sent."""


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """The machine's server has processes that come and go: what is left is looked for there."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid() != 0 or not shutil.which("mmdebstrap") or not shutil.which("ssh-keygen"):
        pytest.skip("needs root, mmdebstrap and ssh-keygen")
    folder = tmp_path_factory.mktemp("installed")
    make_root(folder / "root", "podman", "crun", "docker.io")
    with one(folder, folder / "root") as made:
        cache = made.home / ".cache/vbench"
        cache.mkdir(parents=True)
        (cache / "capsules").symlink_to(capsule.home())
        yield made


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["podman", "docker"])
def test_a_container_by_what_is_installed(machine: Lab, tmp_path: Path, name: str) -> None:
    vbench(machine, "exec", "bare", "--", "true")
    before = machine.inside("bare", _STATE)
    status = vbench(machine, "exec", f"bare/{name}", "--", "grep", "^Seccomp:", "/proc/self/status")
    assert status.split()[-1] == "2"  # a filter, which it has unasked
    assert vbench(machine, "exec", f"bare/{name}", "--", "hostname").strip() == name
    out = tmp_path / "run"
    what = ("-s", f"bare/{name}", "-w", "os-nullcall,disk-rand-read,net-latency")
    vbench(machine, "run", *what, "--blocks", "2", "--out", out)
    assert {row["stack"] for row in rows_of(out)} == {"bare", f"bare/{name}"}
    assert "complete" in vbench(machine, "verify", out)
    assert left(machine, "bare") == []
    assert machine.inside("bare", _STATE) == before


def test_a_machine_without_them(machine: Lab) -> None:
    """The doctor says what is missing when it is hidden."""
    machine.inside("bare", "mv /usr/bin/crun /usr/bin/crun.off; mv /usr/sbin/dockerd /usr/sbin/dockerd.off")
    try:
        said = vbench(machine, "exec", "bare/docker", "--", "true", code=1)
        assert "bare has no dockerd" in said
        assert "install docker.io" in said
        assert "bare has no crun, which Podman is to use" in vbench(
            machine, "exec", "bare/podman", "--", "true", code=1
        )
    finally:
        machine.inside(
            "bare", "mv /usr/bin/crun.off /usr/bin/crun; mv /usr/sbin/dockerd.off /usr/sbin/dockerd"
        )
