"""The catalogue: whole, sourced, and at one with the layers that there are."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from vbench.advisor import catalog
from vbench.cli.main import app
from vbench.errors import UsageError, VbenchError
from vbench.hosts.declared import read_hosts
from vbench.layers.base import layer_classes
from vbench.observe import identity
from vbench.technique import Technique

# Every name of the seed document's lists of examples, by the section that it stands in.
DOCUMENT = {
    "isolator": "Linux-VServer, chroot, BSD Jail, OpenVZ",
    "user-space kernel": "User Mode Linux, Cooperative Linux, coLinux, Adeos, L4Linux",
    "type 2": "Microsoft VirtualPC, Microsoft VirtualServer, Parallels Desktop, Parallels Server, "
    "Oracle VM VirtualBox, VMware Fusion, VMware Player, VMware Server, VMware Workstation",
    "type 1": "Xen, VMware ESX, VMware ESXi, Microsoft Hyper-V Server, Parallels Server Bare Metal, KVM, Oracle VM, "
    "Proxmox",
    "hardware": "IBM Power hypervisor, Micro-partitionnement AIX, VM/CMS, Sun LDOM, Sun E10k, Sun E15k, HP Superdome, "
    "AMD-V, Pacifica, Intel VT, Vanderpool",
    "paravirtualization": "Xen, virt-manager, Enomalism, VServer, xVM",
}
NAMED = [(section, name) for section, names in DOCUMENT.items() for name in names.split(", ")]
HEIRS = (
    "LXC, Docker, Podman, systemd-nspawn, bubblewrap, gVisor, Firecracker, Cloud Hypervisor, Kata Containers, bhyve, "
    "WSL 2, QEMU, libvirt, XCP-ng, Azure, AWS Nitro, Apple Virtualization framework, Hyper-V"
)

_ALIASES = {
    "Microsoft VirtualPC": "VirtualPC",
    "Microsoft VirtualServer": "VirtualServer",
}


@pytest.mark.parametrize(("section", "name"), NAMED)
def test_every_name_of_the_document_is_there(section: str, name: str) -> None:
    entry = catalog.find(_ALIASES.get(name, name))
    assert section in entry.document


@pytest.mark.parametrize("name", HEIRS.split(", "))
def test_today_s_heirs_are_there(name: str) -> None:
    assert catalog.find(name).document == []


def test_every_layer_has_an_entry_and_every_layer_named_is_one() -> None:
    named = {layer for entry in catalog.entries() for layer in entry.measured.layers}
    nearest = {entry.measured.nearest for entry in catalog.entries()} - {None}
    assert named == layer_classes().keys()
    assert nearest <= layer_classes().keys()
    for name, layer in layer_classes().items():
        entry = catalog.of_layer(name)
        assert entry is not None
        assert entry.name == layer.catalogue


@pytest.mark.parametrize("entry", catalog.entries(), ids=lambda entry: entry.name)
def test_only_what_layers_measure_today_is_called_measured(entry: catalog.Entry) -> None:
    if entry.measured.layers:
        assert set(entry.measured.layers) <= layer_classes().keys()
        assert entry.measured.how.startswith("layer")
        return
    for language, starts in (("en", ("over SSH", "not possible")), ("fr", ("par SSH", "impossible"))):
        assert catalog.row(entry, language)["measured"].startswith(starts)  # type: ignore[arg-type]
    told = catalog.how_measured(entry)
    if entry.measured.over is None:
        assert entry.measured.why, "the fact that stands against it"
        assert catalog.lines(entry) == []
    else:
        assert told.startswith("over SSH, not run on that product; ")
        assert "pas essayé sur ce produit" in catalog.how_measured(entry, "fr")


@pytest.mark.parametrize(
    "entry", [entry for entry in catalog.entries() if entry.measured.over], ids=lambda entry: entry.name
)
def test_the_lines_to_type_are_a_hosts_file_and_commands_that_there_are(
    entry: catalog.Entry, tmp_path: Path
) -> None:
    declared, _, commands = "\n".join(catalog.lines(entry)).partition("\n\n")
    (tmp_path / "hosts.toml").write_text(declared)
    machines = read_hosts(tmp_path / "hosts.toml", catalog.systems(), [*layer_classes()])
    assert machines["guest"].system == entry.name
    assert machines[machines["guest"].baseline].system == ""
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "vbench"
        command = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
        known = {option for each in command.params for option in each.opts}
        assert {word for word in words if word.startswith("-")} <= known


def test_what_a_machine_may_hide_is_what_has_no_hypervisor() -> None:
    kinds = ("isolator", "user-space kernel")
    shown = {"User Mode Linux", "chroot", "bubblewrap"}
    named = {entry.name for entry in catalog.entries() if entry.technique in kinds} - shown
    assert {*identity.WITHOUT_HYPERVISOR} - shown == named


def test_a_layer_s_entry_is_the_most_particular_one() -> None:
    found = {name: entry.name for name in layer_classes() if (entry := catalog.of_layer(name))}
    assert found["pv"] == "Xen PV guest"
    assert found["xen"] == "Xen dom0"
    assert found["kvm"] == "KVM"
    assert found["uml"] == "User Mode Linux"
    assert catalog.of_layer("nosuch") is None


def test_techniques_are_those_of_layers() -> None:
    assert {technique.value for technique in Technique} <= set(catalog.TECHNIQUES)
    for name, layer in layer_classes().items():
        entry = catalog.of_layer(name)
        assert entry is not None
        assert entry.technique == layer.technique.value


def test_a_layer_not_run_on_real_hardware_is_said_to_be_so() -> None:
    assert catalog.find("KVM").measured.how == "layer, not yet on real hardware"
    assert catalog.find("UML").measured.how == "layer"


@pytest.mark.parametrize("entry", catalog.entries(), ids=lambda entry: entry.name)
def test_every_entry_is_told_and_sourced(entry: catalog.Entry) -> None:
    assert entry.cites
    cited = {fact for facts in entry.cites.values() for fact in facts}
    assert set(entry.documented()) <= cited
    for text in (entry.summary, entry.summary_fr):
        assert 20 < len(text) < 240
        assert text.endswith(".")
    assert entry.summary != entry.summary_fr
    if entry.first and entry.last:
        assert entry.first <= entry.last
    if entry.status == "active":
        assert entry.last is None


def test_every_source_is_used_once_defined() -> None:
    loaded = catalog.load()
    assert {key for entry in loaded.entry for key in entry.cites} == loaded.sources.keys()
    urls = [source.url for source in loaded.sources.values()]
    assert len(urls) == len(set(urls))


def test_the_document_s_oddities_are_told() -> None:
    assert "twice" in catalog.find("VServer").note
    for name in ("coLinux", "Adeos", "L4Linux", "Proxmox", "VM/CMS", "virt-manager"):
        assert catalog.find(name).note


# --- what a bad file gives ---


def broken(tmp_path: Path, old: str, new: str) -> Path:
    text = catalog.FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "catalog.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('man-chroot = "technique host', 'man-chroot = "host', "chroot: no source for technique"),
        ('heir = "BSD jail"', 'heir = "no such"', "its heir no such is no other entry"),
        ('aliases = ["UML"]', 'aliases = ["CHROOT"]', "CHROOT: two entries have this name"),
        ('chroot-origins = "years"', 'nowhere = "years"', "cites nowhere, which is no source"),
        ('hardware = "none"', 'hardware = "perhaps"', "hardware"),
        ('layers = ["chroot"]', "layers = []", "layers are named where"),
        ("first = 1979", "frist = 1979", "frist"),
        ("[french]", "[french", "catalog.toml"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(VbenchError, match=re.escape(message)) as caught:
        catalog.load(broken(tmp_path, old, new))
    assert "\n" not in caught.value.message


# --- finding and rows ---


def test_names_are_found_in_any_case_and_close_ones_are_suggested() -> None:
    assert catalog.find(" openVZ ").name == "OpenVZ"
    assert catalog.find("vmware esxi").name == "ESXi"
    with pytest.raises(UsageError, match="no entry 'xne'") as caught:
        catalog.find("xne")
    assert caught.value.hint == "did you mean Xen?"
    with pytest.raises(UsageError, match="no entry 'parallels'") as caught:
        catalog.find("parallels")
    assert "Parallels Desktop" in str(caught.value.hint)
    with pytest.raises(UsageError):
        catalog.find("")


def test_rows_are_plain_and_alike_in_both_languages() -> None:
    english, french = catalog.rows(), catalog.rows("fr")
    assert json.loads(json.dumps(english)) == english
    assert [row["name"] for row in english] == [row["name"] for row in french]
    assert english[0].keys() == french[0].keys()
    chroot = {language: catalog.row(catalog.find("chroot"), language) for language in ("en", "fr")}
    assert chroot["en"]["technique"] == "isolator"
    assert chroot["fr"]["technique"] == "isolateur"
    assert chroot["fr"]["summary"].startswith("Une autre racine")
    assert re.fullmatch(r"1979 \W aujourd.hui", chroot["fr"]["years"])
    assert re.fullmatch(r"2004 \W 2011", catalog.row(catalog.find("coLinux"))["years"])
    assert catalog.row(catalog.find("coLinux"))["heir_is_our_reading"]
    assert not catalog.row(catalog.find("ESX"))["heir_is_our_reading"]


def test_every_value_has_its_french_word() -> None:
    values: set[Any] = set(catalog.TECHNIQUES)
    for entry in catalog.entries():
        values |= {entry.open_source, entry.status, entry.guest_kernel, entry.hardware, entry.other_os}
        values |= {entry.boundary, entry.migration, entry.measured.how}
    assert values <= catalog.load().french.keys()
    assert set(catalog.row(catalog.find("KVM"), "fr")) == set(catalog.row(catalog.find("KVM")))


NAMES = re.compile(r"(?!.*-or-)(z/)?[A-Z0-9][\w.+/-]*(,? \(?(z/)?[A-Z0-9][\w.+/-]*\)?)*")
"""Texts that are names only, the same in both languages."""


def free_texts(entry: catalog.Entry) -> set[str]:
    texts = {entry.host, entry.guest, entry.licence, entry.note, entry.measured.why, *entry.remarks.values()}
    return {text for text in texts if text and not NAMES.fullmatch(text)} - catalog.load().french.keys()


@pytest.mark.parametrize("entry", catalog.entries(), ids=lambda entry: entry.name)
def test_nothing_is_left_in_english_among_french(entry: catalog.Entry) -> None:
    assert free_texts(entry) <= catalog.load().phrases.keys()
    french = catalog.row(entry, "fr")
    told = {key: text for key, text in french.items() if key not in ("name", "aliases", "layers", "sources")}
    words = re.findall(r"\w+", json.dumps(told, ensure_ascii=False))
    known = {*catalog.row(entry), *entry.remarks}  # keys stay as they are
    assert not ({*words} - known) & {"the", "of", "and", "with", "its", "is", "by", "those", "needs"}


def test_every_french_phrase_is_one_of_the_catalogue_s() -> None:
    used = set().union(*map(free_texts, catalog.entries()))
    used |= {catalog.how_measured(entry) for entry in catalog.entries()}
    assert [phrase for phrase in catalog.load().phrases if not any(phrase in text for text in used)] == []


def test_french_texts_have_french_spaces() -> None:
    text = catalog.how_measured(catalog.find("Hyper-V"), "fr")
    assert text.startswith("par SSH, pas essayé sur ce produit\N{NO-BREAK SPACE}; sa référence")
    assert not re.search(r" [:;?!%»]", json.dumps(catalog.rows("fr"), ensure_ascii=False).replace('" :', ""))


def test_what_is_not_known_is_said_not_guessed() -> None:
    raw = tomllib.loads(catalog.FILE.read_text(encoding="utf-8"))
    unknown = [value for entry in raw["entry"] for value in entry.values() if value == catalog.UNKNOWN]
    assert unknown
    row = catalog.row(catalog.find("Podman"))
    assert row["years"] == catalog.UNKNOWN


# --- the command ---


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_command(call: Call) -> None:
    code, out, _ = call("catalog")
    assert code == 0
    assert out.index("isolator") < out.index("chroot") < out.index("type 2") < out.index("QEMU")
    assert "not yet on real hardware" in out
    code, out, _ = call("catalog", "--json")
    assert json.loads(out) == catalog.rows()
    code, out, _ = call("catalog", "OPENVZ")
    assert "https://criu.org/OpenVZ" in out
    assert "LXC (our reading)" in out
    for option in (["--lang", "fr"], ["--fr"]):
        code, out, _ = call("catalog", "kvm", *option, "--json")
        assert json.loads(out)[0]["status"] == "actif"
    assert "--fr" not in call("catalog", "--help")[1]
    code, out, err = call("catalog", "--lang", "de")
    assert (code, out, err.count("\n")) == (2, "", 1)
    code, out, _ = call("catalog", "--lang", "en")
    assert re.search(r"VMware Workstation .* over SSH *\n", out)
    out = call("catalog", "vmware workstation")[1]
    assert "    vbench run --hosts hosts.toml -s guest -w full\n" in out
    code, out, err = call("catalog", "xne")
    assert code == 2
    assert err == "vbench: the catalogue has no entry 'xne'\n  hint: did you mean Xen?\n"
