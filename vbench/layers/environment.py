"""How an environment is opened from the capsule: one template, in which a layer fills in its own parts."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from vbench.errors import BootError, CommandFailed, HostError, LayerUnavailable
from vbench.exact import hop
from vbench.exact.hop import Hop
from vbench.hosts.base import Admit, Host, Payload, Process, Setting
from vbench.hosts.keys import HostKey, client_public_key
from vbench.hosts.local import LocalHost
from vbench.hosts.placement import Placement
from vbench.layers import guest
from vbench.layers.base import Layer, Shape
from vbench.layers.guest import Link


@dataclass(frozen=True)
class Site:
    """Where an environment is opened, and how large it is.

    ``work`` is its own directory on the parent's scratch storage, containing its ``seed``; ``seconds``, how
    long it may take to come up there; ``placement``, how it gets its resources.
    """

    parent: Host
    payload: Payload
    shape: Shape
    link: Link
    work: str
    seconds: float
    placement: Placement


def add_on(site: Site, name: str) -> str:
    """The tree of an add-on on the parent: already there on the local machine, copied to any other parent.

    The copy goes over the connection and takes up scratch storage while the environment is open: an add-on
    for parents that are guests has to be small.
    """
    part, parent = site.payload.add_ons[name], site.parent
    if isinstance(parent, LocalHost):
        return f"{part.directory}/tree"
    tree = f"{site.work}/{name}"
    parent.put(Path(f"{part.directory}/add-on.tar").read_bytes(), f"{tree}.tar")
    parent.run(["mkdir", tree])
    parent.run(["tar", "-xf", f"{tree}.tar", "-C", tree], timeout=guest.patience(parent, 60))
    parent.run(["rm", f"{tree}.tar"])
    return tree


def program(site: Site, tree: str, path: str) -> list[str]:
    """The argv prefix for an add-on's program on the parent, with the capsule's loader and C library."""
    payload = site.payload
    folders = [f"{payload.tree}/{part}" for part in payload.library_path]
    folders += [f"{tree}/{part}/x86_64-linux-gnu" for part in ("lib", "usr/lib")]
    return [f"{payload.tree}/{payload.loader}", "--library-path", ":".join(folders), f"{tree}/{path}"]


class EnvironmentLayer(Layer):
    """A layer whose environments start from the parent's capsule and are accessed over SSH.

    Only :meth:`start` is required.
    """

    boots_image: ClassVar[bool] = False
    """Whether its environments boot from the capsule's image, and not from its tree."""
    seconds: ClassVar[float] = 20
    """How long an environment may take to come up on hardware."""

    @abstractmethod
    def start(self, site: Site) -> AbstractContextManager[Process]:
        """Start the environment: a process on the parent that is the environment and ends with it."""

    def link(self, parent: Host) -> Link:
        """The network between parent and environment; by default an interface created by :meth:`start`."""
        return guest.private_link(parent)

    def place(self, site: Site) -> Placement:
        """How the environment gets its resources; whatever it does not set is the parent's."""
        return site.parent.placement

    def join(self, site: Site, process: Process) -> None:
        """Bring up the link once the process exists."""
        if site.link.interface != "lo":
            guest.configure_link(site.parent, site.link, process, site.seconds)

    def settle(self, site: Site, host: Host) -> None:
        """Finish setting up an environment once it accepts logins."""

    def path(self, parent: Host) -> str:
        """The environment's stack path."""
        return f"{parent.name}/{self.word}"

    def adjust(self, site: Site, setting: Setting) -> Setting:
        """The host's setting, where it differs from that of a guest of its parent."""
        return setting

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[Host]:
        """Open an environment; on exit, nothing of it remains on the parent."""
        payload, key, link = self.require(parent), HostKey.generate(parent.chance), self.link(parent)
        seconds = guest.patience(parent, self.seconds)
        with ExitStack() as opened:
            work = opened.enter_context(guest.workdir(parent, self.name))
            client = parent.client_key.public if isinstance(parent, Hop) else client_public_key()
            parent.put(guest.seed(key, self.name, link, client), f"{work}/seed", 0o600)
            site = Site(parent, payload, shape, link, work, seconds, parent.placement)
            placement = replace(self.place(site), clock=self.clock or parent.placement.clock)
            site = replace(site, placement=placement)
            with self._explained(site):
                process = opened.enter_context(self.start(site))
                self.join(site, process)
            inside = replace(payload, directory=guest.DIRECTORY)
            setting = Setting(self.path(parent), inside, "/scratch", placement=placement, process=process)
            setting = opened.enter_context(_meeting_peer(parent, link, setting))
            log_in = _hop if isinstance(parent, Hop) else _log_in
            with self._explained(site):
                host = opened.enter_context(log_in(site, self.adjust(site, setting), key, process))
            self.settle(site, host)
            yield host

    @contextmanager
    def _explained(self, site: Site) -> Iterator[None]:
        """If an environment does not come up, say why where its parent tells more than its console."""
        parent = site.parent
        try:
            yield
        except (BootError, CommandFailed) as error:
            if self.boots_image and not guest.has_file(parent, site.payload.image):
                raise LayerUnavailable(
                    f"{parent.name} does not hold the capsule's image, from which {self.name} boots",
                    "containers are given its tree alone; open the guest first, and the container in it",
                ) from error
            if isinstance(error, BootError) and (cause := guest.out_of_memory(parent)):
                head = error.message.partition("\n")[0]
                raise BootError(f"{head}; {parent.name} was out of memory: {cause}", error.console) from error
            raise


@contextmanager
def _hop(site: Site, setting: Setting, key: HostKey, process: Process) -> Iterator[Host]:
    """The same on a deterministic machine, whose environments are logged in to from inside."""
    address, parent = (site.link.guest, site.link.port), site.parent
    assert isinstance(parent, Hop)  # noqa: S101 - that is why it is this function
    alive = partial(guest.alive, process, setting.name)
    try:
        with hop.connect(parent, address, setting, host_key=key, deadline=site.seconds, alive=alive) as host:
            yield host
    except BootError as error:
        raise BootError(error.message, process.tail()) from error


@contextmanager
def _log_in(site: Site, setting: Setting, key: HostKey, process: Process) -> Iterator[Host]:
    """The SSH connection to a newly started environment; it becomes the host its layer yields.

    The process is the environment: its usage is the environment's cost, and killing it kills both.
    """
    # It brings paramiko, a third of the time that a command takes to start which opens nothing by SSH.
    from vbench.hosts.ssh.connect import connect  # noqa: PLC0415

    address = (site.link.guest, site.link.port)
    with ExitStack() as opened:
        try:
            host = opened.enter_context(
                connect(
                    site.parent,
                    address,
                    setting,
                    host_key=key,
                    deadline=site.seconds,
                    alive=lambda: guest.alive(process, setting.name),
                )
            )
        except BootError:
            raise
        except HostError as error:
            raise BootError(error.message, process.tail()) from error
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process, over, opened.close), daemon=True)
        watcher.start()
        try:
            yield host
        finally:
            over.set()
            watcher.join()


def _watch(process: Process, over: threading.Event, hang_up: Callable[[], None]) -> None:
    """Hang up when an environment's process ends: TCP does not notice that the far end of a tap is gone."""
    while not over.wait(0.25):
        try:
            if process.poll() is None:
                continue
        except HostError:
            pass  # the parent itself is gone
        hang_up()
        return


@contextmanager
def _meeting_peer(parent: Host, link: Link, setting: Setting) -> Iterator[Setting]:
    """Give an environment's network workloads the same peer as its parent's, if it can be reached.

    All environments on one machine then have the same peer: the cost of a layer in a guest is not read by
    comparing a path that never leaves the guest with one that does.
    """
    admit = parent.admit if link.shared else _nobody if link.nat else _admitting(parent, link)
    own = replace(setting, peer=link.gateway, bind=link.parent, peer_at=parent.name, admit=admit)
    parents = replace(own, peer=parent.peer, bind=parent.bind, peer_at=parent.peer_at)
    if parent.admit is None:  # on the network of the machine itself
        yield replace(own, peer_at=parent.peer_at or parent.name)
    elif link.shared:
        yield parents
    else:
        with nullcontext(False) if link.nat else parent.admit(parent, f"{link.guest}/32") as reached:
            yield parents if reached else own


def _nobody(host: Host, network: str) -> AbstractContextManager[bool]:
    """Behind NAT, no network can be routed."""
    return nullcontext(False)


def _admitting(parent: Host, link: Link) -> Admit:
    """Route a network behind an environment on ``parent``, over the link between the two."""

    @contextmanager
    def admit(host: Host, network: str) -> Iterator[bool]:
        forward = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]
        ip, route = parent.program("ip"), [network, "via", link.guest, "dev", link.interface]
        led = host.run(forward, check=False).code == 0
        led = led and parent.run([*ip, "route", "add", *route], check=False).code == 0
        try:
            with parent.admit(parent, network) if led and parent.admit else nullcontext(led) as reached:
                yield reached
        finally:
            if led:
                with suppress(HostError):  # the parent itself may be gone, along with its routes
                    parent.run([*ip, "route", "del", *route], check=False)

    return admit
