"""The optional packages of an extra (`pip install 'selfloop[EXTRA]'`), and which of them are not there."""

import re
from importlib.metadata import PackageNotFoundError, requires, version

_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w.,\s-]*)\])?.*;.*\bextra\s*==\s*['\"]([\w.-]+)['\"]")


def missing(extra: str, package: str = "selfloop") -> list[str]:
    """Return the packages that `package[extra]` wants and that are not installed; none of what is not known."""
    return [name for name in _wanted(package, extra) if not _there(name)] if extra else []


def pip(extra: str, package: str = "selfloop") -> str:
    """Return the line that installs an extra."""
    return f"pip install '{package}[{extra}]'"


def _wanted(package: str, extra: str) -> list[str]:
    """Return the packages of an extra, and of the extras that it names of its own package."""
    try:
        lines = requires(package) or []
    except PackageNotFoundError:
        return []
    found = [match for line in lines if (match := _REQUIREMENT.match(line)) and match[3] == extra]
    own = [
        name.strip()
        for match in found
        if match[1] == package
        for name in (match[2] or "").split(",")
    ]
    others = [match[1] for match in found if match[1] != package]
    return [*others, *(name for more in own if more for name in _wanted(package, more))]


def _there(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False
