"""Checks of Python, selfloop's packages, its extras and plugins."""

import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from selfloop.cli.extras import pip, requirements

from .findings import Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

MIN_PYTHON = (3, 11)
COLLECTIONS = ("all", "dev", "docs")  # extras that are made of others, or for developers
ENGINES = {"llamacpp", "hf"}  # extras that run a model


def python(deep: bool) -> Iterator[Finding]:
    """Check the version of Python."""
    version = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    text = f"{version}, {sys.executable}"
    if sys.version_info < MIN_PYTHON:
        yield Finding("python", text, "wrong", "install Python 3.11 or newer, and selfloop in it")
    else:
        yield Finding("python", text)


def packages(deep: bool) -> Iterator[Finding]:
    """Check the packages that selfloop always needs."""
    yield Finding("selfloop", f"{metadata.version('selfloop')}, {Path(__file__).parent}")
    lacking = [wanted for wanted in requirements("") if _problem(wanted)]
    if lacking:
        problems = "; ".join(map(_problem, lacking))
        names = " ".join(f"'{wanted}'" for wanted in lacking)
        yield Finding("packages", problems, "wrong", f"pip install {names}")


def extras(deep: bool) -> Iterator[Finding]:
    """Check the packages that only some components need."""
    complete = set()
    for extra in metadata.metadata("selfloop").get_all("Provides-Extra") or ():
        if extra in COLLECTIONS:
            continue
        wanted = list(requirements(extra))
        problems = list(filter(None, map(_problem, wanted)))
        if problems:
            yield Finding(f"[{extra}]", "; ".join(problems), "note", pip(extra))
        else:
            complete.add(extra)
            versions = [f"{package.name} {metadata.version(package.name)}" for package in wanted]
            yield Finding(f"[{extra}]", ", ".join(versions))
    if not complete & ENGINES:
        mend = "pip install 'selfloop[llamacpp]' (or [hf], for transformers)"
        yield Finding("backends", "none is installed that runs a model", "wrong", mend)


def _problem(wanted: "Requirement") -> str:
    """Return why a package does not meet a requirement, or an empty string."""
    try:
        installed = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    if wanted.specifier.contains(installed, prereleases=True):
        return ""
    return f"{wanted.name} {installed} is installed, but {wanted.specifier} is needed"


def plugins(deep: bool) -> Iterator[Finding]:
    """Check that all plugins can be imported; those that fail for one reason are one finding."""
    from selfloop.registry.manager import load

    catalog = load()
    yield Finding("plugins", f"{len(catalog.plugins)} (see: selfloop plugins)")
    # One missing package may break many plugins.
    by_reason: dict[str, list[str]] = {}
    for name, reason in catalog.broken.items():
        by_reason.setdefault(reason.removeprefix(f"plugin {name} "), []).append(name)
    for reason, names in by_reason.items():
        mend = "install the missing package, or update or uninstall the one with the plugin"
        yield Finding("plugins", f"{', '.join(names)}: {reason}", "wrong", mend)
