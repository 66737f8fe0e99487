"""The command line: the only place that prints or exits."""

from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from vbench import __version__
from vbench.console import CliWatcher, say, show_table, warn
from vbench.errors import UsageError, VbenchError

# Commands import what they need when they run: analysis works where the harness's needs are not installed,
# and `vbench --help` answers at once.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="What each layer of virtualization costs: identical workloads, alone and stacked.",
)
capsule_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The payload that runs everywhere."
)
app.add_typer(capsule_app, name="capsule")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Stacks = Annotated[list[str] | None, typer.Option("--stack", "-s", help="A stack path, such as local/uml.")]
Names = Annotated[list[str] | None, typer.Option("--workload", "-w", help="A workload or a group of them.")]
Folders = Annotated[
    list[Path] | None, typer.Option("--workloads", help="A further folder of workload files.")
]
Folder = Annotated[Path, typer.Argument(help="A bundle.")]
StackPath = Annotated[str, typer.Argument(help="A stack path, such as local/uml.")]


@app.command()
def doctor(
    parent: Annotated[str, typer.Argument(help="Where the layers would open.")] = "local", json: Json = False
) -> None:
    """Say of every layer whether it can open here, and if not, why and what mends it."""
    from vbench.doctor import examine

    rows = examine(parent)
    if not json:
        for row in rows:
            row["detail"] += f"\nmend: {row['mend']}" if row["mend"] else ""
    show_table(rows, json=json, columns=("layer", "technique", "status", "detail"))


@app.command()
def layers(json: Json = False) -> None:
    """List the layers that vbench knows."""
    from vbench.layer import layer_classes

    rows = [
        {"layer": name, "technique": layer.technique.value, "what it is": layer.summary}
        for name, layer in layer_classes().items()
    ]
    show_table(rows, json=json)


@app.command()
def workloads(
    name: Annotated[str | None, typer.Argument(help="Show one workload whole.")] = None,
    files: Folders = None,
    json: Json = False,
) -> None:
    """List the workloads, or say of one what it measures, what it does not, and what it exposes."""
    from vbench.selection import find, page, summary

    known = _workloads(files)
    if name is not None:
        lines = page(find(known, name))
        show_table([lines] if json else [{"": key, " ": text} for key, text in lines.items()], json=json)
    else:
        show_table([summary(each) for each in known.values()], json=json)


@app.command()
def run(
    plan: Annotated[Path | None, typer.Argument(help="A plan file in TOML.")] = None,
    stack: Stacks = None,
    workload: Names = None,
    files: Folders = None,
    blocks: Annotated[int | None, typer.Option(help="How many blocks; 6 give a 95% interval.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides the order of everything.")] = None,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder.")] = None,
) -> None:
    """Measure stacks against their baselines; the result is a bundle that `vbench report` reads."""
    from vbench import capsule
    from vbench.plan import load_plan

    known = _workloads(files)
    chosen = load_plan(plan, known, stacks=stack, workloads=workload, blocks=blocks, seed=seed)
    _start(chosen, known, capsule.require(), out)


def _start(plan: Any, known: Any, built: Any, out: Path | None) -> Path:
    from vbench.run import new_run
    from vbench.store import Bundle

    info = new_run(plan, known, built)
    folder = out or Path("results") / info.id
    with Bundle.create(folder, info) as bundle:
        say(f"results go to {folder}")
        _carry_out(bundle, known, built)
    return folder


def _carry_out(bundle: Any, known: Any, built: Any) -> None:
    from vbench.run import execute

    with CliWatcher() as watcher:
        try:
            execute(bundle, known, built, watcher)
        except KeyboardInterrupt:
            warn(f"interrupted; every sample so far is kept: vbench resume {bundle.path}")
            raise
    left_out = len(bundle.info.failures)
    say(f"{bundle.journal.rows} samples" + (f", {left_out} cells or stacks left out" if left_out else ""))


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="The bundle of an interrupted run.")], files: Folders = None
) -> None:
    """Finish an interrupted run: same plan, same seed, nothing measured twice."""
    from vbench import capsule
    from vbench.store import Bundle

    known = _workloads(files)
    with Bundle.open(folder) as bundle:
        if bundle.info.status == "complete":
            say(f"{folder} is complete already")
            return
        for name, info in bundle.info.workloads.items():
            if name not in known or known[name].digest != info.digest:
                raise UsageError(f"workload {name} has changed since {folder} was begun", "start a new run")
        _carry_out(bundle, known, capsule.require())


@app.command()
def report(
    folder: Folder,
    output: Annotated[Path | None, typer.Option("-o", help="The HTML file.")] = None,
    json: Json = False,
) -> None:
    """Show what each layer costs, and write a self-contained report."""
    from vbench import load
    from vbench.report import render, summary_table

    loaded = load(folder)
    show_table(
        summary_table(loaded), json=json, columns=("stack", "workload", "ratio", "low", "high", "verdict")
    )
    target = output or folder / "report.html"
    try:
        target.write_text(render(loaded), encoding="utf-8")
    except OSError as error:
        raise VbenchError(
            f"cannot write {target}: {error.strerror}", "choose another file with -o"
        ) from error
    if not json:
        say(f"report: {target}")


@app.command()
def plot(
    folder: Folder,
    output: Annotated[Path, typer.Option("-o", help="A .png, .svg or .pdf file.")],
    clock: Annotated[str | None, typer.Option(help="wall or instructions.")] = None,
) -> None:
    """Draw the figure 'relative performance by technique'; wall-clock and instruction-counted stay apart."""
    from vbench import load
    from vbench.plot import save
    from vbench.report import figure

    if output.suffix not in {".png", ".svg", ".pdf"}:
        raise UsageError(f"{output}: a figure is a .png, .svg or .pdf file")
    save(figure(load(folder), clock=clock), output)
    say(f"figure: {output}")


@app.command()
def verify(folder: Folder) -> None:
    """Check a bundle: its schema, its journal's seals, and that it is complete."""
    from vbench import load

    loaded = load(folder)
    if loaded.info.status != "complete":
        raise VbenchError(f"{folder} is {loaded.info.status}", f"finish it with: vbench resume {folder}")
    say(
        f"{folder}: complete, {len(loaded.samples)} samples, capsule {loaded.info.capsule.get('digest', '')[:16]}"
    )


@app.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec_(
    stack: StackPath, argv: Annotated[list[str], typer.Argument(help="The command, after --.")]
) -> None:
    """Run one command inside a stack; its exit code is ours."""
    with _opened(stack) as host:
        data = sys.stdin.buffer.read() if _is_fed() else None
        argv = argv[1:] if argv[0] == "--" else argv
        done = host.run(argv, check=False, timeout=None, input=data)
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(done.stderr)
    raise typer.Exit(done.code)


def _is_fed() -> bool:
    """Whether standard input is a file or a pipe, to be handed on; a terminal is not waited for."""
    mode = os.fstat(0).st_mode if sys.stdin else 0
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


@app.command()
def shell(stack: StackPath) -> None:
    """Open an interactive shell inside a stack."""
    if not sys.stdin.isatty():
        raise UsageError("a shell needs a terminal", "for one command: vbench exec STACK -- COMMAND")
    from vbench.terminal import interact

    with _opened(stack) as host:
        say(f"a shell in {host.name}; leave it with exit")
        code = interact(host)
    raise typer.Exit(code)


def _opened(path: str) -> Any:
    from vbench import capsule
    from vbench.layer import Shape
    from vbench.stack import Stack, open_stack

    return open_stack(Stack.parse(path), capsule.require(), Shape())


@capsule_app.command("build")
def capsule_build(
    mirror: Annotated[str | None, typer.Option(help="A Debian mirror, as mmdebstrap takes it.")] = None,
    update_lock: Annotated[bool, typer.Option(help="Make the lock file say what was built.")] = False,
) -> None:
    """Build the capsule from Debian packages, once; says what differs from the lock file."""
    from vbench import capsule

    built = capsule.build(say, mirror=mirror)
    if update_lock:
        capsule.write_lock(built)
    elif built.manifest.drift:
        warn(
            f"{len(built.manifest.drift)} packages differ from the lock file: vbench capsule show lists them"
        )
    say(f"capsule {built.digest}")


@capsule_app.command("show")
def capsule_show(json: Json = False) -> None:
    """What the capsule holds, and how it differs from the lock file."""
    from vbench import capsule

    built = capsule.require()
    manifest = built.manifest
    if json:
        sys.stdout.write(manifest.model_dump_json(indent=1) + "\n")
        return
    say(f"capsule   {manifest.digest}\nin        {built.directory}\nkernel    {manifest.kernel}")
    say(f"packages  {len(manifest.packages)}, {len(manifest.drift)} of them not as in the lock file")
    for line in manifest.drift:
        say(f"  {line}")
    say(f"programs  {', '.join(sorted(manifest.programs))}")


@capsule_app.command("export")
def capsule_export(file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write the capsule to one file, to be imported on another machine."""
    from vbench import capsule

    capsule.export(capsule.require(), file)
    say(f"wrote {file}")


@capsule_app.command("import")
def capsule_import(file: Annotated[Path, typer.Argument(help="A file that export wrote.")]) -> None:
    """Take in an exported capsule, after checking its digest."""
    from vbench import capsule

    say(f"capsule {capsule.import_(file, say).digest}")


@app.command()
def clean(
    capsules: Annotated[bool, typer.Option("--capsules", help="Remove the capsule, too.")] = False,
) -> None:
    """Remove what killed runs and builds left behind, and with --capsules the capsule."""
    from vbench import capsule
    from vbench.stack import remove_stale

    gone = [*remove_stale(), *capsule.remove(partial_only=not capsules)]
    for folder in gone:
        say(f"removed {folder}")
    if not gone:
        say("nothing to remove")


@app.command()
def quickstart(
    blocks: Annotated[int, typer.Option(min=1, help="How many blocks.")] = 6,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder.")] = None,
    testbed: Annotated[bool, typer.Option("--testbed", help="On the emulated PC: KVM and Xen, too.")] = False,
) -> None:
    """The main job: set up what is missing, measure every layer that works here, and write the report."""
    from vbench import capsule
    from vbench.doctor import examine
    from vbench.layer import layer_classes
    from vbench.plan import load_plan
    from vbench.setup import install_missing

    install_missing(say)
    built = capsule.build(say)
    known = _workloads(None)
    if testbed:
        stacks, group = (
            [f"local/testbed/{each}" for each in ("chroot", "kvm", "xen", "xen/pv", "uml")],
            "testbed",
        )
    else:
        rows = [row for row in examine("local") if layer_classes()[row["layer"]].clock is None]
        show_table(rows, json=False, columns=("layer", "technique", "status", "detail"))
        stacks, group = ["local", *(row["stack"] for row in rows if row["available"])], "quick"
    folder = _start(
        load_plan(None, known, stacks=stacks, workloads=[group], blocks=blocks), known, built, out
    )
    report(folder)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        say(f"vbench {__version__}")
        raise typer.Exit


def _workloads(folders: list[Path] | None) -> Any:
    from vbench import paths
    from vbench.workload import load_workloads

    return load_workloads([paths.workload_files(), *(folders or [])])


def _terminate(*_: object) -> None:
    # The same unwinding as for Ctrl-C, so that nothing is left behind either way.
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: errors that users can act on become one or two lines and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
    except VbenchError as error:
        warn(error.message + (f"\n  mend: {error.hint}" if error.hint else ""))
        code = error.exit_code
    except TyperException as error:
        warn(error.format_message())
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        warn("interrupted")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
