"""The packages of the extra that a report needs.

Where one is missing, a command refuses to start; the observer of a run skips the report, so that
the run goes on.
"""

from importlib.util import find_spec

from selfloop.errors import MissingExtraError

EXTRA = "report"
# jinja2 fills in the page, matplotlib draws, squarify lays out the map of topics
PACKAGES = ("jinja2", "matplotlib", "squarify")


def missing_package() -> str:
    """Return the first package of the extra that is not installed, or an empty string.

    The packages are looked up, not imported: matplotlib alone takes half a second.
    """
    return next((name for name in PACKAGES if not is_installed(name)), "")


def require_packages(wanted_by: str) -> None:
    """Raise MissingExtraError where a package of the extra is not installed."""
    name = missing_package()
    if name:
        raise MissingExtraError(name, EXTRA, wanted_by)


def is_installed(name: str) -> bool:
    """Return whether a top-level package can be imported."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # an import hook refuses it, or it was put half into place
        return False
