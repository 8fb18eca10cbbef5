"""What each kind of component must do. Components need not inherit from these; the shapes count.

Batch first everywhere: a tuple in, as many results in the same order out. Verifiers, scorers and
critics may return a mapping from the items to the results instead, whose order does not matter; a
set is refused. All that a component gets is frozen. A component that raises, whatever the class, or
returns the wrong thing, is a `Failure` on the attempts it was working on; the others go on. Ctrl-C
alone (`KeyboardInterrupt` itself) passes through.

Capabilities are words that a backend gives and others need; a recipe that asks for one the backend
lacks is refused before any model loads.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from selfloop.config.prompts import Prompt
from selfloop.errors import RequestError
from selfloop.events import Event
from selfloop.history import Past
from selfloop.records import (
    Adapter,
    AdapterProof,
    Attempt,
    Claim,
    Completion,
    Continuation,
    ModelInfo,
    Question,
    Request,
    Score,
    Verdict,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CAPABILITIES: Mapping[str, str] = {
    "logprobs": "the log-probability of every generated token",
    "entropies": "the entropy of the distribution that each token was drawn from",
    "chat": "chat messages, where the model has a template",
    "loglikelihood": "log-probabilities of a given continuation",
    "hidden_states": "hidden states of the last layer, or of any",
    "attentions": "how much each token attends to the one before it",
    "adapters": "loading a LoRA adapter at run time",
}


class Backend(Protocol):
    """A model that can be asked. Everything above it is independent of how it runs."""

    def describe(self) -> ModelInfo:
        """Return what the model is and can do."""
        ...

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield (index of the request, one completion) as they finish, `n` for each request.

        A request that cannot be served yields one `RequestError` in place of its completions. The
        completion's `sample` says which of the n it is; sample k of a request is the same whatever
        n is.
        """
        ...

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return the natural-log probability of each token of each continuation. Capability
        `loglikelihood`.

        With an empty prompt it is that of a text by itself; its first token counts only if the
        model has one that begins a text. Nothing is generated.
        """
        ...

    def hidden_states(
        self, pairs: Sequence[Continuation], places: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return a layer's states at tokens, (places, width). Capability `hidden_states`.

        Place 0 is the last token of the prompt, i the i-th of the continuation, -1 the last of all.
        Layer 0 is what the tokens themselves are turned into, i what the i-th layer makes of it, -1
        the last, after its norm. A backend that has not all of them gives a `RequestError` for the
        others.
        """
        ...

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return each head's attention from a token to the one before it, (layers, heads, tokens of
        the continuation).

        Capability `attentions`.
        """
        ...

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter (None: the bare model) and prove that it is in effect.

        Capability `adapters`.
        """
        ...

    def close(self) -> None:
        """Free the model. Called once, at the end of a run."""
        ...


@dataclass(frozen=True)
class Asking:
    """What a question source or a scorer is told: how many questions are still wanted, and what
    there is to work with.

    `turn` counts the calls of this round from 0, so that each call can draw with new seeds (`seed`
    already depends on run, round, source and turn). `prompts` gives the recipe's prompts by name
    (`prompts.py`).
    """

    n: int
    round: int
    turn: int
    seed: int
    backend: Backend
    past: Past
    prompt: Callable[..., Prompt]


class QuestionSource(Protocol):
    """Where questions come from."""

    def ask(self, asking: Asking) -> Iterable[Question]:
        """Return about `asking.n` new questions; more or fewer is fine, none means there are no more."""
        ...


class Scorer(Protocol):
    """Says how good a question is to ask, before anything is spent on answering it."""

    def score(
        self, questions: Sequence[Question], asking: Asking
    ) -> Sequence[Score] | Mapping[Question, Score]:
        """Return one finite score for each question; `asking.past` holds everything the run ever asked."""
        ...


@dataclass(frozen=True)
class Judging:
    """What verifiers, critics and demonstrators are told. All that the backend reads or writes here
    is stored.

    The backend is lent: `load_adapter` raises PluginError, and `close` does nothing. So it is in
    `Asking`; a tuner may load adapters, and the one before is loaded again if it fails.

    `prompt` gives the recipe's prompts by name, in the model's form. `before` lets the verifiers
    listed before this one judge other claims, such as these with fewer samples; what they say of
    these is in the claims. `seed` depends on run, round and component. `past` is what the run knows
    of its earlier rounds.
    """

    backend: Backend
    prompt: Callable[..., Prompt]
    before: Callable[[Sequence[Claim]], Sequence[tuple[Verdict, ...]]]
    seed: int = 0
    past: Past = field(default_factory=Past)


class Verifier(Protocol):
    """A BS detector: says how likely an answer is to be true, without taking the model's word."""

    def verify(
        self, claims: Sequence[Claim], judging: Judging
    ) -> Sequence[Verdict] | Mapping[Claim, Verdict]:
        """Return one verdict for each claim; confidence None is to abstain, with a reason."""
        ...


class Critic(Protocol):
    """Says of drafts what may make the model answer better. Whether it did is for verifiers that
    never saw it.

    `revise` names the prompt with which the model answers again; it is given `question`, `draft`
    and `critique`.
    """

    revise: str

    def critique(
        self, claims: Sequence[Claim], judging: Judging
    ) -> Sequence[Completion] | Mapping[Claim, Completion]:
        """Return one critique for each claim; an empty text where there is nothing to say, and the draft stays."""
        ...


class Demonstrator(Protocol):
    """Chooses what a question is shown with, in place of the fixed demonstrations of the prompt `answer`."""

    def show(self, questions: Sequence[str], judging: Judging) -> Sequence[Prompt]:
        """Return the whole prompt for each question.

        Called again for questions that verifiers make up.
        """
        ...


@dataclass(frozen=True)
class Tuning:
    """What a tuner is told. `past` holds this round's outcomes too; `folder` is the tuner's own,
    and outlives a kill.

    `prompt` gives the recipe's prompts by name, `answer` as the loop itself asks it. `seed` depends
    on run and round. `tell(done, of, loss)` is to be called after each batch that is learnt: it is
    what a person sees of the tune.
    """

    round: int
    attempts: Sequence[Attempt]
    past: Past
    folder: Path
    backend: Backend
    prompt: Callable[..., Prompt]
    seed: int = 0
    tell: Callable[[int, int, float], None] = lambda done, of, loss: None


class Tuner(Protocol):
    """Feeds what the loop found out back into the weights."""

    def tune(self, tuning: Tuning) -> Adapter | None:
        """Train on what the past holds, write into the folder; None: no new adapter, the last one stays."""
        ...


class Observer(Protocol):
    """Sees what happens and changes nothing.

    One that raises is reported and left out, not fatal.
    """

    def notice(self, event: Event) -> None:
        """Take one frozen event of `selfloop.events`."""
        ...

    def close(self) -> None:
        """Called once at the end of the run, also when it failed or was stopped, or when `notice` has raised."""
        ...


@dataclass(frozen=True)
class Component:
    """One thing a plugin offers.

    `build` makes it; its keyword arguments are the options a recipe may give, and their types and
    defaults are checked from its signature before any model loads. A parameter named `folder` (a
    `Path`) is not an option: it gets the run's folder. `needs` are the capabilities it needs of the
    backend; `gives`, for a backend, the ones it has. `check` takes the same options as `build` and
    raises a `SelfloopError` for what can be seen without loading the model. `doc` is one line for
    `selfloop plugins`, `paper` where the method comes from, and `prompts` a folder of prompt files
    that the component renders. `extra` is the optional dependency of its own package without which
    it cannot be built, for `selfloop plugins` to say. `writes` are the options of type `Path` that
    it writes to. All others are taken for inputs: a run keeps the hash of what is there when it
    begins, and does not go on with another.

    `api` is the version of the plugin API (`selfloop.plugin.PLUGIN_API`) that the component was
    written for. A newer one than this selfloop has is refused.

    `wraps` names the option that is itself a component of the same kind. A recipe writes a
    component there, which is checked and built first; `build` gets the built object, and `check`
    gets all options but this one. A backend that wraps another lets the capabilities in `gives`
    through, as far as the inner backend has them, and `needs` are those it needs of the inner one.

    Some fields tell selfloop how to treat a component that it does not know by name:

    * `local`: an observer that writes into the run's folder alone. `selfloop plan` measures it.
    * `interactive`: an observer that shows the run to a person. `--quiet` leaves it out.
    * `estimate`: takes the options that the recipe gives. A tuner returns the number of times that
      it reads each lesson (epochs), from which `selfloop plan` forecasts its time.
    * `advise`: takes the `ModelInfo` of the loaded backend and returns what `selfloop plan` should
      recommend, a sentence each.
    * `docs`: the page that describes the component, for `selfloop plugins`.
    """

    name: str
    build: Callable[..., Any]
    doc: str = ""
    needs: frozenset[str] = field(default_factory=frozenset[str])
    gives: frozenset[str] = field(default_factory=frozenset[str])
    check: Callable[..., None] | None = None
    paper: str = ""
    prompts: Path | None = None
    extra: str = ""
    writes: frozenset[str] = field(default_factory=frozenset[str])
    api: int = 1
    wraps: str = ""
    local: bool = False
    interactive: bool = False
    estimate: Callable[..., float] | None = None
    advise: Callable[[ModelInfo], Sequence[str]] | None = None
    docs: str = ""
