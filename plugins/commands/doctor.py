"""`selfloop doctor`: what there is to run selfloop with, what is slow or wrong about it, and how to
mend that.

Each check is a function that yields findings, and none may stop the others: what one raises is its
finding.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from selfloop_plugins import models
from selfloop_plugins.models.command import size

from selfloop import hookimpl
from selfloop.cli.options import as_json
from selfloop.cli.tables import print_wrapped, terminal_width, wrapped
from selfloop.text.display import printable

from . import _computer as computer

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Level = Literal["ok", "note", "slow", "wrong"]
COLOURS: dict[Level, str] = {
    "ok": "green",
    "note": "bright_black",
    "slow": "yellow",
    "wrong": "red",
}
LEAST_MEMORY, LEAST_DISK = 10**9, 2 * 10**9  # bytes free, below which little can be done
COLUMN = 22  # where a finding's text begins
NARROW = 72  # a terminal of fewer columns has it on a line of its own
LONGEST = 400  # cells of a finding
PATIENCE = {False: 20.0, True: 180.0}  # seconds for another Python, without and with --deep
REBUILD = (
    "CMAKE_ARGS=-DGGML_NATIVE=on pip install --force-reinstall --no-deps --no-cache-dir "
    "--no-binary llama-cpp-python llama-cpp-python"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about a topic; `mend` is what to do about it."""

    topic: str
    said: str
    level: Level = "ok"
    mend: str = ""


@click.command("doctor")
@click.option("--deep", is_flag=True, help="Import PyTorch too, to see its GPU: takes seconds.")
@as_json
def command(deep: bool, as_json: bool) -> int:
    """Say what there is to run selfloop with, and what to do about what is slow or wrong.

    The exit code is 1 if something will not work.

    \b
    Examples:
      selfloop doctor
      selfloop doctor --deep --json
    """
    found = list(examined(deep))
    wrong = sum(one.level == "wrong" for one in found)
    if as_json:
        click.echo(
            json.dumps({"wrong": wrong, "findings": [asdict(one) for one in found]}, indent=2)
        )
        return int(wrong > 0)
    for one in found:
        _print(one)
    slow = sum(one.level == "slow" for one in found)
    click.echo(f"\nwrong: {wrong or 'nothing'}. Slow: {slow or 'nothing'}.")
    return int(wrong > 0)


def _print(finding: Finding) -> None:
    """Print a finding in columns, or on a narrow terminal as lines."""
    is_wide = terminal_width() >= NARROW
    column = " " * (COLUMN if is_wide else 2)
    level = click.style(
        f"{finding.level:6}" if is_wide else finding.level, fg=COLOURS[finding.level]
    )
    text, *more = wrapped(printable(finding.said, LONGEST), first=column, more=column)
    click.echo(
        f"{level}{finding.topic:16}{text[COLUMN:]}"
        if is_wide
        else f"{level} {finding.topic}\n{text}"
    )
    for line in more:
        click.echo(line)
    if finding.mend:
        print_wrapped(f"-> {printable(finding.mend, LONGEST)}", first=column, more=column)


def examined(deep: bool) -> Iterator[Finding]:
    """Yield the findings of all checks."""
    for topic, check in CHECKS.items():
        try:
            yield from check(deep)
        except Exception as error:  # noqa: BLE001  whatever is missing, the other checks go on
            yield Finding(topic, f"could not be looked at: {type(error).__name__}: {error}", "note")


def _python(deep: bool) -> Iterator[Finding]:
    version, old = platform.python_version(), sys.version_info < (3, 11)
    mend = "install Python 3.11 or newer, and selfloop in it" if old else ""
    where = f"{version} on {platform.system()} {platform.machine()}, {sys.executable}"
    yield Finding("python", where, "wrong" if old else "ok", mend)


def _packages(deep: bool) -> Iterator[Finding]:
    """What selfloop always needs."""
    yield Finding("selfloop", f"{metadata.version('selfloop')}, {Path(__file__).parent}")
    if lacking := [(lack, one) for one in _requirements("") if (lack := _lack(one))]:
        line = " ".join(f"'{one}'" for _, one in lacking)
        yield Finding(
            "packages", "; ".join(lack for lack, _ in lacking), "wrong", f"pip install {line}"
        )


def _extras(deep: bool) -> Iterator[Finding]:
    """What is only needed for some things."""
    there = set()
    for extra in metadata.metadata("selfloop").get_all("Provides-Extra") or ():
        if extra in ("all", "dev", "docs"):
            continue
        wanted, line = list(_requirements(extra)), f"pip install 'selfloop[{extra}]'"
        lacks = [lack for one in wanted if (lack := _lack(one))]
        if not lacks:
            there.add(extra)
            yield Finding(
                f"[{extra}]",
                ", ".join(f"{one.name} {metadata.version(one.name)}" for one in wanted),
            )
        else:
            yield Finding(f"[{extra}]", "; ".join(lacks), "note", line)
    if not there & {"llamacpp", "hf"}:
        mend = "pip install 'selfloop[llamacpp]' (or [hf], for transformers)"
        yield Finding("backends", "none is installed that runs a model", "wrong", mend)


def _requirements(extra: str) -> Iterator["Requirement"]:
    """Yield what an extra adds (an empty one: what selfloop needs), what it takes from other extras too."""
    from packaging.requirements import Requirement

    for one in map(Requirement, metadata.requires("selfloop") or ()):
        if (
            (one.marker is None)
            if not extra
            else (one.marker and one.marker.evaluate({"extra": extra}))
        ):
            if one.name == "selfloop":
                yield from (inner for other in sorted(one.extras) for inner in _requirements(other))
            else:
                yield one


def _lack(wanted: "Requirement") -> str:
    """Return what is wrong with an installed package, or an empty string."""
    try:
        there = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    fits = wanted.specifier.contains(there, prereleases=True)
    return "" if fits else f"{wanted.name} {there} is there, and {wanted.specifier} is needed"


def _processor(deep: bool) -> Iterator[Finding]:
    has = computer.features()
    told = (
        "this system does not say what it can"
        if has is None
        else ", ".join(has) or "none of what llama.cpp is fast with"
    )
    slow = has is not None and not {"avx2", "asimd"} & set(has)
    mend = "llama.cpp runs without AVX2, but slowly: take the smallest model" if slow else ""
    yield Finding("processor", f"{computer.processor()}: {told}", "slow" if slow else "ok", mend)


def _threads(deep: bool) -> Iterator[Finding]:
    cores, limit, said = (
        computer.cores(),
        computer.core_limit(),
        os.environ.get("OMP_NUM_THREADS", ""),
    )
    allowed = (
        f", of which this container allows {limit:g}" if limit is not None and limit < cores else ""
    )
    yield Finding("cores", f"{cores} for this process{allowed}, {os.cpu_count()} in all")
    if allowed:
        few = max(1, int(limit or 1))
        yield Finding(
            "threads",
            f"more of them than {limit:g} only get in each other's way",
            "slow",
            f"set backend.threads: {few}",
        )
    if said.isdigit() and int(said) != cores:
        what = "leaves cores idle" if int(said) < cores else "is more than there are cores"
        mend = f"unset OMP_NUM_THREADS, or set it to {cores}"
        yield Finding(
            "threads",
            f"OMP_NUM_THREADS={said} {what}; PyTorch heeds it, in tuning too",
            "slow",
            mend,
        )


def _memory(deep: bool) -> Iterator[Finding]:
    total, free = computer.memory()
    limit = computer.memory_limit()
    inside = f", this container allows {size(limit)}" if limit is not None and limit < total else ""
    low = min(free, limit or free) < LEAST_MEMORY
    mend = (
        "close other programs, or take a small model (smollm2-135m-instruct needs half a gigabyte)"
        if low
        else ""
    )
    yield Finding(
        "memory", f"{size(free)} free of {size(total)}{inside}", "slow" if low else "ok", mend
    )


def _llama(deep: bool) -> Iterator[Finding]:
    """Ask llama.cpp itself how it was built, in a process of its own: one built for another processor dies of it."""
    try:
        version = metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        yield Finding("llama.cpp", "not installed", "note", "pip install 'selfloop[llamacpp]'")
        return
    done = _elsewhere("import llama_cpp; print(llama_cpp.llama_print_system_info().decode())", deep)
    if done.returncode:
        why = (
            "it dies when it starts: it was built for another processor"
            if done.returncode < 0
            else _last(done.stderr)
        )
        yield Finding(
            "llama.cpp", f"llama-cpp-python {version} cannot be used: {why}", "wrong", REBUILD
        )
        return
    built = {
        name.strip()
        for name, _, on in (
            part.partition("=") for part in done.stdout.replace(":", "|").split("|")
        )
        if on.strip() == "1"
    }
    yield Finding(
        "llama.cpp",
        f"llama-cpp-python {version}, built with {', '.join(sorted(built)) or 'nothing special'}",
    )
    unused = [name for name in computer.features() or () if computer.FEATURES[name] not in built]
    if unused:
        said = f"this processor has {', '.join(unused)}, and llama.cpp was built without"
        yield Finding("llama.cpp", said, "slow", REBUILD)


def _gpu(deep: bool) -> Iterator[Finding]:
    there = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    card = "an NVIDIA driver is installed" if there else "no NVIDIA driver"
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        yield Finding("gpu", f"{card}; without PyTorch none is used", "note")
        return
    if there and torch.endswith("+cpu"):
        mend = "install PyTorch for CUDA: https://pytorch.org/get-started/locally/"
        yield Finding("gpu", f"{card}, but PyTorch {torch} cannot use it", "slow", mend)
    elif not there and torch.endswith("+cpu"):
        yield Finding("gpu", f"{card}; PyTorch {torch} uses the processor")
    elif not deep:
        yield Finding(
            "gpu", f"{card}, PyTorch {torch}. Whether it finds a GPU: selfloop doctor --deep"
        )
    else:
        yield _cuda(f"PyTorch {torch}", there)


def _cuda(torch: str, driver: bool) -> Finding:
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    done = _elsewhere(code, deep=True)
    if done.returncode:
        mend = "pip install --force-reinstall 'selfloop[hf]'"
        return Finding("gpu", f"{torch} cannot be imported: {_last(done.stderr)}", "wrong", mend)
    name = done.stdout.strip()
    if name or not driver:
        return Finding(
            "gpu",
            f"{torch} uses {name}" if name else f"{torch} finds no GPU and uses the processor",
        )
    mend = "update the NVIDIA driver, or install PyTorch for the CUDA that it has"
    return Finding("gpu", f"there is an NVIDIA driver, but {torch} finds no GPU", "slow", mend)


def _elsewhere(code: str, deep: bool) -> "subprocess.CompletedProcess[str]":
    command, patience = [sys.executable, "-c", code], PATIENCE[deep]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=patience
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(
            command, 1, "", f"no answer within {patience:.0f} seconds"
        )


def _last(text: str) -> str:
    return next(
        (line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing"
    )


def _cache(deep: bool) -> Iterator[Finding]:
    """selfloop's own cache, what is in it, and whether it can be written."""
    folder = models.cache_folder()
    for name, what in {
        "models": "fetched models",
        "working": "working copies",
        "converted": "for transformers",
    }.items():
        if models.is_readable(folder / name):
            yield Finding(
                "cache",
                f"{size(computer.weight(folder / name))} in {folder / name}: {what}, made again "
                "if deleted",
            )
    mend = f"free some space, or set {models.CACHE_VARIABLE} to another folder"
    yield _room("cache", folder, mend)


def _others(deep: bool) -> Iterator[Finding]:
    for place in models.STORES:
        for folder in filter(models.is_readable, place.folders()):
            yield Finding(
                "models",
                f"{size(computer.weight(folder))} in {folder}: {place.title} (see: selfloop "
                "models)",
            )


def _runs(deep: bool) -> Iterator[Finding]:
    folder = Path(os.environ.get("SELFLOOP_RUNS") or "runs")
    count = len(list(folder.glob("*/run.sqlite"))) if models.is_readable(folder) else 0
    if count:
        yield Finding(
            "runs",
            f"{count} run{'s' * (count != 1)} in {folder.resolve()}, "
            f"{size(computer.weight(folder))}",
        )
    yield _room(
        "runs", folder, "free some space, or choose another folder with --runs or SELFLOOP_RUNS"
    )


def _room(topic: str, folder: Path, mend: str) -> Finding:
    """Return whether a folder, or the one that it will be made in, can be written, and how much room there is."""
    home = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        return Finding(topic, f"{folder} cannot be written", "wrong", mend)
    free = shutil.disk_usage(home).free
    low = free < LEAST_DISK
    return Finding(
        topic, f"{size(free)} free in {folder}", "slow" if low else "ok", mend if low else ""
    )


def _plugins(deep: bool) -> Iterator[Finding]:
    from selfloop.registry.manager import load

    catalog = load()
    yield Finding("plugins", f"{len(catalog.plugins)} (see: selfloop plugins)")
    alike: dict[str, list[str]] = {}
    for name, why in catalog.broken.items():
        alike.setdefault(why.removeprefix(f"plugin {name} "), []).append(name)
    for why, names in alike.items():
        mend = "install what is missing, or update or uninstall the package that this comes from"
        yield Finding("plugins", f"{', '.join(names)}: {why}", "wrong", mend)


CHECKS: dict[str, Callable[[bool], Iterator[Finding]]] = {
    "python": _python,
    "selfloop": _packages,
    "extras": _extras,
    "plugins": _plugins,
    "processor": _processor,
    "cores": _threads,
    "memory": _memory,
    "llama.cpp": _llama,
    "gpu": _gpu,
    "cache": _cache,
    "models": _others,
    "runs": _runs,
}


@hookimpl
def selfloop_commands() -> list[click.Command]:
    """Offer the command."""
    return [command]
