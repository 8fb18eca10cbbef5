"""The interfaces of the kinds of components. A component need not inherit from its protocol.

Everything works in batches: a component gets a tuple and returns as many results in the same order.
Detectors, scorers and critics may return a mapping from items to results instead, in any order; a
set is refused. All arguments are frozen. A component may raise an exception of any class, or return
a wrong type: the attempts that it was working on get a `Failure`, and the others go on. Only Ctrl-C
(`KeyboardInterrupt` itself) passes through.

Capabilities are words that a backend gives and other components need. A recipe whose component
needs one that the backend lacks is refused before any model loads.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from selfloop.config.prompts import Prompt
from selfloop.errors import RequestError
from selfloop.events import Event
from selfloop.history import History
from selfloop.records import (
    Adapter,
    AdapterProof,
    Attempt,
    Claim,
    Completion,
    Continuation,
    ModelInfo,
    ModelState,
    Question,
    Request,
    Score,
    Verdict,
)

# Type checkers alone import numpy: it is slow, and `selfloop --help` must start at once.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Word -> its meaning, for messages and for docs/recipe.md.
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
    """A model that generates and reads text. Nothing above it depends on how the model runs."""

    def describe(self) -> ModelInfo:
        """Return the name, the file and the capabilities of the model."""
        ...

    def generate(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion | RequestError]]:
        """Yield (index of the request, one completion) as they finish, `n` for each request.

        A request that cannot be served yields one `RequestError` in place of its completions.
        `Completion.sample` numbers the completions of a request. Sample k is the same whatever `n`
        is and whatever else is in the batch: a resumed run relies on it.
        """
        ...

    def loglikelihood(
        self, pairs: Sequence[Continuation]
    ) -> list[tuple[float, ...] | RequestError]:
        """Return the natural-log probabilities of the tokens of each continuation.

        Capability `loglikelihood`. After an empty prompt they are those of the text by itself. Its
        first token then counts only if the model has a token that begins a text. Nothing is
        generated.
        """
        ...

    def hidden_states(
        self, pairs: Sequence[Continuation], positions: Sequence[int] = (0, -1), layer: int = -1
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return the states of one layer at some tokens: arrays of shape (positions, width).

        Capability `hidden_states`. Position 0 is the prompt's last token, position i the i-th of
        the continuation, -1 its last. Layer 0 is the embedding of the tokens, layer i the output of
        the i-th layer, -1 that of the last one after its norm. For a layer that the backend does
        not have, the result is a `RequestError`.
        """
        ...

    def attentions(
        self, pairs: Sequence[Continuation]
    ) -> "list[NDArray[np.float32] | RequestError]":
        """Return the attention of each head from a token to the one before it.

        Capability `attentions`. The shape is (layers, heads, tokens of the continuation).
        """
        ...

    def load_adapter(self, adapter: Adapter | None) -> AdapterProof:
        """Swap the adapter (None: the bare model) and prove that it is in effect.

        Capability `adapters`. Raises ModelError for one that cannot be loaded or changes nothing.
        """
        ...

    def close(self) -> None:
        """Free the model. Called once, at the end of a run."""
        ...


@dataclass(frozen=True)
class AskContext:
    """The context of a question source or a scorer.

    * `n`: the number of questions that are still wanted.
    * `round`, `turn`: the number of the round (from 1), and of the call within it (from 0).
    * `seed`: depends on run, round, source and turn, so each call draws anew.
    * `backend`: lent, as in `VerifyContext`. Its completions are stored. It is the base, unless the
      recipe says `ask.with: tuned`.
    * `history`: the questions and outcomes so far, those of this round's earlier calls included.
    * `prompt`: renders a prompt of the recipe by its name, in the model's form.
    """

    n: int
    round: int
    turn: int
    seed: int
    backend: Backend
    history: History
    prompt: Callable[..., Prompt]


class QuestionSource(Protocol):
    """Gives questions."""

    def ask(self, context: AskContext) -> Iterable[Question]:
        """Return about `context.n` new questions. None means that there are no more."""
        ...


class Scorer(Protocol):
    """Rates a question before the model spends time on its answer."""

    def score(
        self, questions: Sequence[Question], context: AskContext
    ) -> Sequence[Score] | Mapping[Question, Score]:
        """Return one finite score for each question.

        `context.history` has all earlier questions.
        """
        ...


@dataclass(frozen=True)
class VerifyContext:
    """The context of detectors, critics and few-shot selectors.

    * `backend`: everything that it generates or reads is stored. It is lent: `load_adapter` raises
      PluginError, and `close` does nothing. Only a tuner may load adapters; if the tuner fails, the
      run loads the earlier adapter again. A few-shot selector has the base, and so has a detector,
      unless the recipe or `Component.reads` says otherwise. A critic has the model that answers.
    * `prompt`: renders a prompt of the recipe by its name, in the model's form.
    * `earlier_verdicts`: lets the detectors listed before this one judge other claims, such as
      these with fewer samples. Their verdicts on these claims are in `Claim.verdicts`.
    * `seed`: depends on run, round and component.
    * `history`: the outcomes of the earlier rounds.
    """

    backend: Backend
    prompt: Callable[..., Prompt]
    earlier_verdicts: Callable[[Sequence[Claim]], Sequence[tuple[Verdict, ...]]]
    seed: int = 0
    history: History = field(default_factory=History)


class Detector(Protocol):
    """Estimates the probability that an answer is true."""

    def verify(
        self, claims: Sequence[Claim], context: VerifyContext
    ) -> Sequence[Verdict] | Mapping[Claim, Verdict]:
        """Return one verdict for each claim. To abstain: confidence None, with a reason."""
        ...


class Critic(Protocol):
    """Comments on drafts, so that the model may answer better. Detectors never see the critique.

    `revise_prompt` is the name of the prompt with which the model answers again. Its values are
    `question`, `draft` and `critique`.
    """

    revise_prompt: str

    def critique(
        self, claims: Sequence[Claim], context: VerifyContext
    ) -> Sequence[Completion] | Mapping[Claim, Completion]:
        """Return one critique for each claim. After an empty text the draft stays as it is."""
        ...


class FewShotSelector(Protocol):
    """Chooses the few-shot examples of each question, in place of those of the prompt `answer`."""

    def build_prompts(self, questions: Sequence[str], context: VerifyContext) -> Sequence[Prompt]:
        """Return the whole prompt for each question.

        It is called again for the questions that detectors write.
        """
        ...


@dataclass(frozen=True)
class TuneContext:
    """The context of a tuner.

    * `attempts`, `history`: this round's attempts, and all outcomes so far, theirs included.
    * `folder`: the tuner's own folder for this round. A resumed tune finds its files there.
    * `backend`: the model under the adapter in effect; the tuner may load others.
    * `prompt`: renders a prompt of the recipe by its name. `answer` is as the loop asks it.
    * `seed`: depends on run and round.
    * `on_batch(done, of, loss)`: to be called after each training batch, so that the user sees the
      progress of the tune.
    """

    round: int
    attempts: Sequence[Attempt]
    history: History
    folder: Path
    backend: Backend
    prompt: Callable[..., Prompt]
    seed: int = 0
    on_batch: Callable[[int, int, float], None] = lambda done, of, loss: None


class Tuner(Protocol):
    """Trains an adapter on the results of the loop."""

    def tune(self, context: TuneContext) -> Adapter | None:
        """Train, write into the folder and return the adapter. With None the last one stays."""
        ...


class Observer(Protocol):
    """Sees the events of a run and changes nothing.

    An observer that raises is reported and left out; the run goes on.
    """

    def on_event(self, event: Event) -> None:
        """Take one frozen event of `selfloop.events`."""
        ...

    def close(self) -> None:
        """Finish. Called once, at the end of a run that succeeded, failed or was stopped."""
        ...


@dataclass(frozen=True)
class Component:
    """One thing a plugin offers.

    `build` makes it; its keyword arguments are the options a recipe may give, and their types and
    defaults are checked from its signature before any model loads. A parameter named `folder` (a
    `Path`) is not an option: it gets the run's folder. `needs` are the capabilities it needs of the
    backend; `gives`, for a backend, the ones it has. `check` takes the same options as `build` and
    raises a `SelfloopError` for a mistake that can be seen without the model. `doc` is one line for
    `selfloop plugins`, `paper` where the method comes from, and `prompts` a folder of prompt files
    that the component renders. `extra` is the optional dependency of its own package without which
    it cannot be built, for `selfloop plugins` to say. `writes` are the options of type `Path` that
    it writes to. All others are taken for inputs: a run keeps the hashes that they have when it
    begins, and does not go on with others.

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
    * `advise`: takes the `ModelInfo` of the loaded backend and returns the recommendations
      of `selfloop plan`, a sentence each.
    * `docs`: the page that describes the component, for `selfloop plugins`.
    * `reads`: the model that a detector asks and reads, unless the recipe says otherwise: "base",
      or "tuned" for one that is about the tuned model.
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
    reads: ModelState = "base"
