"""The packages of an extra (`pip install 'selfloop[EXTRA]'`), and which of them are missing."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def missing(extra: str, package: str = "selfloop") -> list[str]:
    """Return the packages of `package[extra]` that are not installed; none if nothing is known."""
    if not extra:
        return []
    # Two extras may want the same package.
    names = dict.fromkeys(wanted.name for wanted in requirements(extra, package))
    return [name for name in names if not _is_installed(name)]


def pip(extra: str, package: str = "selfloop") -> str:
    """Return the line that installs an extra."""
    return f"pip install '{package}[{extra}]'"


def requirements(extra: str, package: str = "selfloop") -> "Iterator[Requirement]":
    """Yield the requirements that an extra adds; with an empty extra those of the package itself.

    An extra that names others of its own package has their requirements too.
    """
    from packaging.requirements import Requirement

    try:
        lines = requires(package) or []
    except PackageNotFoundError:
        return
    for wanted in map(Requirement, lines):
        marker = wanted.marker
        applies = marker.evaluate({"extra": extra}) if extra and marker else marker is None
        # `evaluate` is also true of a marker without an extra, whose requirement is the package's.
        if not applies or (extra and "extra" not in str(marker)):
            continue
        if wanted.name == package:
            for other in sorted(wanted.extras):
                yield from requirements(other, package)
        else:
            yield wanted


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False
