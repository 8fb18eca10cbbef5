"""The requirements on every component, and the checks that the contracts of all kinds share."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from selfloop.config.options import options_model
from selfloop.guard import validate_record
from selfloop.protocols import CAPABILITIES, Component, VerifyContext
from selfloop.testing.contexts import verify_context
from selfloop.testing.scripted import Limited

A = TypeVar("A")
T = TypeVar("T")


class Contract:
    """Subclass the contract of a kind, set `component` (and `options`), run pytest.

    `methods` are the methods that components of the kind must have.
    """

    component: ClassVar[Component]
    options: ClassVar[dict[str, Any]] = {}
    methods: ClassVar[tuple[str, ...]] = ()

    def build(self, folder: Path = Path("nowhere")) -> Any:
        """Return a new component with `options`, and with the run's folder if it takes one."""
        takes_folder = "folder" in inspect.signature(self.component.build).parameters
        folder_option = {"folder": folder} if takes_folder else {}
        return self.component.build(**folder_option | self.options)

    def contexts(self) -> Iterator[VerifyContext]:
        """Yield the contexts that it may work in: of a base model and of a chat model.

        The backends give the capabilities that the component needs, and no others.
        """
        # A chat model gets messages in place of text, which components often forget.
        for chat in (False, True):
            yield verify_context(Limited(self.component.needs, chat=chat), self.component.prompts)

    def test_it_says_what_it_is(self) -> None:
        """Have a name and a line of `doc`; need and give no unknown capabilities."""
        assert self.component.name, "the Component has no name, so no recipe can pick it"
        assert self.component.doc.strip(), "the Component has no doc: describe it in one line"
        assert "\n" not in self.component.doc, "the Component's doc is more than one line"
        # a misspelt capability would refuse every recipe that uses the component
        unknown = (self.component.needs | self.component.gives) - CAPABILITIES.keys()
        assert not unknown, (
            f"no capability is called {', '.join(sorted(unknown))}; there are "
            f"{', '.join(CAPABILITIES)}"
        )

    def test_options_are_typed(self) -> None:
        """Every option has a type, so that a recipe's mistakes are found before a model loads."""
        for name, field in options_model(
            self.component.build, self.component.wraps
        ).model_fields.items():
            assert field.annotation is not Any, f"option {name} has no type"

    def test_it_has_the_methods_of_its_kind(self) -> None:
        """Build an object that a run can use."""
        part = self.build()
        for name in self.methods:
            assert callable(getattr(part, name, None)), f"it has no method {name}()"


def call_each(
    method: Callable[..., Any], items: Sequence[A], context: Any, wanted: type[T]
) -> list[T]:
    """Return the results of a method for `items`, in their order.

    Fail unless it gives one `wanted` record for each, and leaves the items unchanged.
    """
    name = f"{method.__name__}()"
    results = call_with_tuple(method, items, context)
    if isinstance(results, Mapping):
        ordered = [results[item] for item in items]
    else:
        ordered = as_list(name, results)
    assert len(ordered) == len(items), (
        f"{name} gave {len(ordered)} results for {len(items)}; give one for each, in order"
    )
    return [check_record(name, record, wanted) for record in ordered]


def call_with_tuple(method: Callable[..., Any], items: Sequence[A], context: Any) -> Any:
    """Return the result of a method for a tuple of items, as a run passes them.

    Fail if the method changes an item.
    """
    name, batch = f"{method.__name__}()", tuple(items)
    before = deepcopy(batch)  # records are frozen, but a plugin may get round that
    with explained_tuple_errors(name):
        results = method(batch, context)
        # a generator raises only when it is read
        results = list(results) if isinstance(results, Iterator) else results
    assert batch == before, f"{name} changed the items of its tuple; others work with them too"
    return results


@contextmanager
def explained_tuple_errors(name: str) -> Iterator[None]:
    """Fail with an explanation if a component takes the tuple that it gets for a list."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        # the words of Python for a missing method of tuples, and for a tuple added to a list
        if "'tuple' object" not in str(error) and '(not "tuple") to list' not in str(error):
            raise
        wrong = f"{name} changed its argument, or took it for a list: {error}"
        raise AssertionError(f"{wrong}. It gets a tuple: make a list of it first") from error


def as_list(name: str, results: Any) -> list[Any]:
    """Return the results as a list. Fail unless they are a collection in order."""
    assert_ordered(name, results)
    return list(results)


def assert_ordered(name: str, results: Any) -> None:
    """Fail unless the results are a collection in order, or a generator. Text is not."""
    in_order = isinstance(results, Iterable) and not isinstance(
        results, str | bytes | AbstractSet | Mapping
    )
    assert in_order, f"{name} gave {results!r:.60}, not a list"


def check_record(name: str, record: Any, wanted: type[T]) -> T:
    """Return a record as a run takes it. Fail if it or one of its fields is of a wrong type."""
    try:
        return validate_record(record, wanted)
    except TypeError as error:
        raise AssertionError(f"{name} {error}") from None


def assert_same(results: Sequence[Any], others: Sequence[Any], why: str) -> None:
    """Fail with `why` and the first difference, unless both are the same."""
    for i, (result, other) in enumerate(zip(results, others, strict=True)):
        assert result == other, (
            f"{why}; number {i} of {len(results)} was {result!r:.200} and is {other!r:.200}"
        )


def prompt_text(prompt: Any) -> str:
    """Return the text of a prompt, or of all messages of a chat."""
    if isinstance(prompt, str):
        return prompt
    return "".join(message.content for message in prompt)
