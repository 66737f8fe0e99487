"""The direction of imports, as ARCHITECTURE.md draws it, and where printing and exiting may happen."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vbench

ROOT = Path(vbench.__file__).parent
MODULES = {
    ".".join(("vbench", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
# From the bottom up. A module imports modules below its own line, and of its own line only where the names
# stand in that order.
ORDER = (
    "errata errors files paths resolution wording",
    "fairness host journal schema template mix",
    "command keys procs reading shell",
    "child session channel worksize workload library",
    "local sshhost",
    "ssh",
    "layer rootfs facts noise",
    "guest capsule",
    "layers",
    "stack selection",
    "plan lifecycle measure doctor setup terminal",
    "store raw verify",
    "intervals effects outside",
    "overhead log_costs decompose stopping comparable shifts compare changes replay diagram plot figures",
    "catalog needs weigh sensitivity candidates advise report notebook course",
    "recorder lane run",
    "console",
    "commands",
    "cli",
)
PLACE = {
    f"vbench.{name}": (row, column)
    for row, line in enumerate(ORDER)
    for column, name in enumerate(line.split())
}
ANALYSED_WITH = (
    "journal schema store raw verify intervals effects outside overhead log_costs decompose stopping comparable shifts "
    "compare changes replay diagram plot figures report"
    " catalog mix needs weigh sensitivity candidates advise notebook course"
)
ANALYSIS = {f"vbench.{name}" for name in ANALYSED_WITH.split()}
# What only the harness needs, what hosts may never need, and what analysis must do without.
HARNESS = {"paramiko", "psutil", "cryptography"}
FIGURES = {"pandas", "matplotlib", "scipy", "pyarrow", "numpy", "jinja2"}


def nodes(path: Path) -> Iterator[tuple[ast.AST, bool]]:
    """Every node of a module but those for type checkers, and whether it runs when the module is imported."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[ast.AST, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        yield node, at_import
        deeper = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, deeper)

    return walk(ast.parse(path.read_text()), True)


def imports(path: Path, *, lazy: bool) -> set[str]:
    """Modules that a module imports: when it is imported itself, or with ``lazy`` at any time."""
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
    return found


def place(module: str) -> tuple[int, int]:
    return PLACE[".".join(module.split(".")[:2])]


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


def test_every_module_has_a_place() -> None:
    assert {".".join(name.split(".")[:2]) for name in MODULES} - {"vbench"} == PLACE.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module: str) -> None:
    for other in imports(MODULES[module], lazy=False):
        if not other.startswith("vbench."):
            continue
        if module.startswith(
            ("vbench.layers.", "vbench.commands.", "vbench.figures", "vbench.plot", "vbench.report")
        ):
            assert place(other) <= place(module), f"{module} imports {other}"
        else:
            assert place(other) < place(module), f"{module} imports {other}"


def test_layers_know_only_layers_below() -> None:
    below = ["errors", "host", "procs", "keys", "layer", "guest", "ssh", "layers"]
    for module, path in MODULES.items():
        if module.startswith("vbench.layers."):
            used = {name for name in imports(path, lazy=True) if name.startswith("vbench.")}
            assert {name.split(".")[1] for name in used} <= set(below)


@pytest.mark.parametrize("module", sorted(m for m in MODULES if ".".join(m.split(".")[:2]) in ANALYSIS))
def test_analysis_knows_no_host(module: str) -> None:
    others = imports(MODULES[module], lazy=True) | reach(module)
    assert not {name.split(".")[0] for name in others} & HARNESS
    ours = {".".join(name.split(".")[:2]) for name in others if name.startswith("vbench.")}
    assert ours <= ANALYSIS | {"vbench.errors", "vbench.files", "vbench.resolution", "vbench.wording"}


@pytest.mark.parametrize("module", ["vbench.ssh", "vbench.local", "vbench.layers.uml", "vbench.stack"])
def test_hosts_know_no_analysis(module: str) -> None:
    assert module in MODULES
    others = reach(module)
    assert not {name.split(".")[0] for name in others} & FIGURES
    assert not others & ANALYSIS


def test_one_module_imports_paramiko() -> None:
    users = {
        name for name in MODULES if any("paramiko" in each for each in imports(MODULES[name], lazy=True))
    }
    assert users == {"vbench.ssh"}


def test_commands_run_through_hosts() -> None:
    users = {name for name in MODULES if "subprocess" in imports(MODULES[name], lazy=True)}
    # The host itself; building and setting up, which happen before there is a host; the user's own shell.
    allowed = ["local", "child", "command", "rootfs", "capsule", "setup", "terminal"]
    assert users <= {f"vbench.{name}" for name in allowed}


def test_only_the_command_line_prints_and_exits() -> None:
    for module, path in MODULES.items():
        if module in {"vbench.cli", "vbench.console"} or module.startswith("vbench.commands."):
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
    absent = {*HARNESS, "vbench.host", "vbench.local", "vbench.ssh", "vbench.capsule", "vbench.layer"}
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(absent)!r}))\n"
        "import vbench, vbench.store, vbench.overhead, vbench.plot, vbench.report, vbench.cli\n"
        "vbench.load"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_command_line_answers_at_once() -> None:
    """What it needs to do something is imported by the command that does it."""
    assert not {name.split(".")[0] for name in reach("vbench.cli")} & (HARNESS | FIGURES)
