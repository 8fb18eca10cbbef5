"""Whether the methods of a component can be called as a run calls them, seen from their signatures.

The protocols alone declare the methods of a kind and their parameters. A method is checked by
binding as many positional arguments as the protocol's method has: a run passes all of them by
position.
"""

import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any

from selfloop.protocols import (
    Backend,
    Critic,
    Detector,
    FewShotSelector,
    Observer,
    QuestionSource,
    Scorer,
    Tuner,
)

PROTOCOLS: dict[str, type] = {
    "backend": Backend,
    "source": QuestionSource,
    "scorer": Scorer,
    "detector": Detector,
    "critic": Critic,
    "few_shot": FewShotSelector,
    "tuner": Tuner,
    "observer": Observer,
}
# A backend must have these methods only if it gives the capability.
CAPABILITY_OF = {
    "loglikelihood": "loglikelihood",
    "hidden_states": "hidden_states",
    "attentions": "attentions",
    "load_adapter": "adapters",
}


def mistakes(kind: str, component: Any, gives: Collection[str] = ()) -> list[str]:
    """Return the faults of a built component: missing methods and wrong signatures.

    `gives` are the capabilities of a backend. Each fault is the end of a sentence that begins with
    the component: `has no verify(claims, context)`.
    """
    faults = []
    for name, expected in _methods(kind):
        method = getattr(component, name, None)
        call = f"{name}({', '.join(expected)})"
        if callable(method):
            faults += _misfit(method, name, expected, skip_self=False)
        elif CAPABILITY_OF.get(name) is None:
            faults.append(f"has no {call}. Write it")
        elif CAPABILITY_OF[name] in gives:
            faults.append(f"gives {CAPABILITY_OF[name]} and has no {call}. Write it")
    return faults


def mistakes_of_class(kind: str, build: Callable[..., Any]) -> list[str]:
    """Return the wrong signatures that a class shows before it is built.

    A factory function shows nothing. A method that the class lacks may be set in `__init__`: the
    built object is checked again.
    """
    if not inspect.isclass(build):
        return []
    faults = []
    for name, expected in _methods(kind):
        method = inspect.getattr_static(build, name, None)
        if isinstance(method, staticmethod | classmethod):
            faults += _misfit(getattr(build, name), name, expected, skip_self=False)
        elif inspect.isfunction(method):
            faults += _misfit(method, name, expected, skip_self=True)
    return faults


def _methods(kind: str) -> Iterator[tuple[str, list[str]]]:
    """Yield name and parameters, less `self`, of each method of a kind."""
    for name, method in vars(PROTOCOLS[kind]).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            yield name, list(inspect.signature(method).parameters)[1:]


def _misfit(
    method: Callable[..., Any], name: str, expected: list[str], *, skip_self: bool
) -> list[str]:
    """Return the fault of one method as a list of one text, or an empty list."""
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # written in C, or an odd descriptor: the call will tell
        return []
    arguments = ["self", *expected] if skip_self else expected
    try:
        signature.bind(*arguments)
    except TypeError as error:
        written = f"{name}{signature.replace(return_annotation=signature.empty)}"
        wanted = ", ".join(["self", *expected])
        return [f"has {written}: {error}. Write def {name}({wanted})"]
    return []
