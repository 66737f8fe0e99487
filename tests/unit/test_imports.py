"""The direction of imports, as ARCHITECTURE.md draws it, and where printing and exiting may happen."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vbench

ROOT = Path(vbench.__file__).parent
MODULES = {
    ".".join(("vbench", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
ARCHITECTURE = (ROOT.parent / "ARCHITECTURE.md").read_text()
# The folders of vbench, and single modules beside them, from the top of ARCHITECTURE.md's list down.
ORDER = [
    line.split()[0].rstrip("/")
    for line in ARCHITECTURE.partition("```\nvbench/\n")[2].partition("```")[0].splitlines()
]
MACHINES = {"hosts", "capsule", "exact", "layers", "observe", "harness"}
ANALYSIS = {"bundle", "stats", "advisor", "plot", "figures", "report", "notebook"}
# What only the harness needs, and what hosts may never need.
HARNESS = {"paramiko", "psutil", "cryptography"}
FIGURES = {"pandas", "matplotlib", "scipy", "pyarrow", "numpy", "jinja2"}


def nodes(path: Path) -> Iterator[tuple[ast.AST, bool]]:
    """Every node of a module, and whether it runs when the module is imported."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[ast.AST, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            at_import = False
        yield node, at_import
        deeper = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, deeper)

    return walk(ast.parse(path.read_text()), True)


@cache
def imports(path: Path, *, lazy: bool) -> frozenset[str]:
    """Modules that a module imports: when it is imported itself, or with ``lazy`` at any time, types included."""
    found = set()
    for node, at_import in nodes(path):
        if not (at_import or lazy):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner or {node.module}
    return frozenset(found)


def folder(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def ours(module: str) -> set[str]:
    """What a module imports of vbench at any time, but vbench itself, which imports nothing by being imported."""
    return {name for name in imports(MODULES[module], lazy=True) if name.startswith("vbench.")}


def reach(module: str) -> set[str]:
    """Everything that importing a module imports: of vbench by our own reading, of others the name."""
    found, todo = set(), [module]
    while todo:
        for name in imports(MODULES[todo.pop()], lazy=False):
            if name in found:
                continue
            found.add(name)
            if name in MODULES:
                todo.append(name)
    return found


def test_every_folder_has_its_place_in_the_architecture() -> None:
    assert {folder(name) for name in MODULES} - {""} == {*ORDER}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"vbench"}))
def test_imports_go_one_way(module: str) -> None:
    for other in ours(module):
        assert ORDER.index(folder(other)) <= ORDER.index(folder(module)), f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({module: ours(module) & MODULES.keys() for module in MODULES}).prepare()


def test_layers_know_only_layers_below() -> None:
    for module in MODULES:
        if folder(module) == "layers" and module not in {"vbench.layers.stack", "vbench.layers.roots"}:
            assert {folder(name) for name in ours(module)} <= {
                "errors",
                "exact",
                "hosts",
                "layers",
                "technique",
                "terms",
            }, module


@pytest.mark.parametrize("module", sorted(m for m in MODULES if folder(m) in ANALYSIS))
def test_analysis_knows_no_machine(module: str) -> None:
    others = imports(MODULES[module], lazy=True) | reach(module)
    assert not {name.split(".")[0] for name in others} & HARNESS
    assert not {folder(name) for name in others if name.startswith("vbench.")} & MACHINES


@pytest.mark.parametrize("module", sorted(m for m in MODULES if folder(m) in MACHINES))
def test_harness_knows_no_analysis(module: str) -> None:
    """What decides whether a run may end asks statistics, when it comes to that; a bundle is where results go."""
    others = reach(module)
    assert not {name.split(".")[0] for name in others} & FIGURES
    later = {folder(name) for name in others | ours(module) if name.startswith("vbench.")}
    assert not later & ANALYSIS - ({"bundle", "stats"} if folder(module) == "harness" else set())


def test_only_hosts_over_ssh_import_paramiko() -> None:
    users = {
        name for name in MODULES if any("paramiko" in each for each in imports(MODULES[name], lazy=True))
    }
    assert users == {"vbench.hosts.ssh.connect", "vbench.hosts.ssh.login"}


def test_commands_run_through_hosts() -> None:
    users = {name for name in MODULES if "subprocess" in imports(MODULES[name], lazy=True)}
    # The host itself; building and setting up, which happen before there is a host; the user's own shell.
    allowed = [
        "hosts.local",
        "hosts.process",
        "hosts.command",
        "capsule.rootfs",
        "capsule.programs",
        "capsule.capsule",
    ]
    allowed += ["capsule.add_on", "capsule.made", "cli.install", "cli.terminal"]
    assert users <= {f"vbench.{name}" for name in allowed}


def test_only_the_command_line_prints_and_exits() -> None:
    for module, path in MODULES.items():
        if folder(module) == "cli":
            continue
        for node, _ in nodes(path):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "exit", "quit", "sys.exit", "os._exit"}, module
                assert not called.startswith(("sys.stdout.", "sys.stderr.")), module
            elif isinstance(node, ast.Raise) and node.exc is not None:
                assert "SystemExit" not in ast.unparse(node.exc), module


def test_analysis_works_without_the_harness_s_needs() -> None:
    """On a machine that lacks them; here they are made to look absent."""
    absent = {
        *HARNESS,
        "vbench.hosts.base",
        "vbench.hosts.local",
        "vbench.hosts.ssh.connect",
        "vbench.capsule.capsule",
        "vbench.layers.base",
    }
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(absent)!r}))\n"
        "import vbench, vbench.bundle.store, vbench.stats.overhead, vbench.plot, vbench.report, vbench.cli.main\n"
        "vbench.load"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_command_line_answers_at_once() -> None:
    """What it needs to do something is imported by the command that does it."""
    assert not {name.split(".")[0] for name in reach("vbench.cli.main")} & (HARNESS | FIGURES)


def test_no_test_imports_a_test() -> None:
    """What tests share stands in a module that is none: bundles.py, tiny.py, conftest.py."""
    tests = ROOT.parent / "tests"
    for path in tests.rglob("*.py"):
        used = {
            name
            for node, _ in nodes(path)
            for name in (
                [node.module or "", *(alias.name for alias in node.names)]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
        }
        assert not {name for name in used if name.rpartition(".")[2].startswith("test_")}, path
