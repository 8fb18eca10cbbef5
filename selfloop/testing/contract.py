"""What every component must be, and how a contract looks at what one gives."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from selfloop.config.options import options_model
from selfloop.guard import sound
from selfloop.protocols import CAPABILITIES, Component, Judging
from selfloop.testing.scripted import Limited
from selfloop.testing.told import judging

A = TypeVar("A")
T = TypeVar("T")


class Contract:
    """Subclass the contract of a kind, set `component` (and `options`), run pytest."""

    component: ClassVar[Component]
    options: ClassVar[dict[str, Any]] = {}
    methods: ClassVar[tuple[str, ...]] = ()

    def build(self, folder: Path = Path("nowhere")) -> Any:
        """Return a new one, with `options`, and with the run's folder if it takes that."""
        own = (
            {"folder": folder}
            if "folder" in inspect.signature(self.component.build).parameters
            else {}
        )
        return self.component.build(**own | self.options)

    def told(self) -> Iterator[Judging]:
        """Yield what it may be told: of a base model and of a chat model that give what it needs, and nothing more."""
        for chat in (False, True):
            yield judging(Limited(self.component.needs, chat=chat), self.component.prompts)

    def test_it_says_what_it_is(self) -> None:
        """Have a name, a line of `doc` for `selfloop plugins`, and need and give nothing but known capabilities."""
        assert self.component.name, "the Component has no name, so no recipe can pick it"
        assert self.component.doc.strip(), "the Component has no doc: say in a line what it does"
        assert "\n" not in self.component.doc, "the Component's doc is more than one line"
        unknown = (self.component.needs | self.component.gives) - CAPABILITIES.keys()
        assert not unknown, (
            f"no capability is called {', '.join(sorted(unknown))}; there are "
            f"{', '.join(CAPABILITIES)}"
        )

    def test_options_are_typed(self) -> None:
        """Every option has a type, so that a recipe's mistakes are found before a model loads."""
        for name, field in options_model(self.component.build, self.component.wraps).model_fields.items():
            assert field.annotation is not Any, f"option {name} has no type"

    def test_it_has_the_methods_of_its_kind(self) -> None:
        """Build something that a run can use."""
        built = self.build()
        for name in self.methods:
            assert callable(getattr(built, name, None)), f"it has no method {name}()"


def each(method: Callable[..., Any], items: Sequence[A], told: Any, wanted: type[T]) -> list[T]:
    """Return what a method gives for `items`; fail unless it is one `wanted` for each, and the items are unchanged."""
    name = f"{method.__name__}()"
    results = called(method, items, told)
    found = (
        [results[item] for item in items] if isinstance(results, Mapping) else listed(name, results)
    )
    assert len(found) == len(items), (
        f"{name} gave {len(found)} results for {len(items)}; give one for each, in order"
    )
    return [checked(name, one, wanted) for one in found]


def called(method: Callable[..., Any], items: Sequence[A], told: Any) -> Any:
    """Return what a method gives for a tuple of items, as a run hands them over; fail where it wants to change it."""
    name, given = f"{method.__name__}()", tuple(items)
    before = deepcopy(given)
    with taking_tuples(name):
        results = method(given, told)
        results = list(results) if isinstance(results, Iterator) else results
    assert given == before, (
        f"{name} changed what is in the tuple it was given; others work with it too"
    )
    return results


@contextmanager
def taking_tuples(name: str) -> Iterator[None]:
    """Fail where a component raises because the tuple that it gets is no list."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        if "'tuple' object" not in str(error) and '(not "tuple") to list' not in str(error):
            raise
        wrong = f"{name} changed what it was given, or took it for a list: {error}"
        raise AssertionError(f"{wrong}. It gets a tuple: make a list of it first") from error


def listed(name: str, found: Any) -> list[Any]:
    """Return the results as a list; fail where there are none to list."""
    ordered = isinstance(found, Iterable) and not isinstance(
        found, str | bytes | AbstractSet | Mapping
    )
    assert ordered, f"{name} gave {found!r:.60}, not a list"
    return list(found)


def checked(name: str, one: Any, wanted: type[T]) -> T:
    """Return a record as a run takes it; fail where it is another, or a field is of another type."""
    try:
        return sound(one, wanted)
    except TypeError as error:
        raise AssertionError(f"{name} {error}") from None


def same(found: Sequence[Any], other: Sequence[Any], why: str) -> None:
    """Fail with `why`, and the first place where they differ, unless both are the same."""
    for place, (one, two) in enumerate(zip(found, other, strict=True)):
        assert one == two, (
            f"{why}; number {place} of {len(found)} was {one!r:.200} and is {two!r:.200}"
        )
