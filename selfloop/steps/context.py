"""The context of one round: everything that its steps share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

from selfloop import progress
from selfloop.config.assembly import Pipeline
from selfloop.config.prompts import Prompt
from selfloop.config.recipe import Recipe
from selfloop.events import AttemptEnded, ComponentFailed, StepName, StepStarted, TrainingStep
from selfloop.guard import attribute_errors, exactly, validate_record
from selfloop.history import History
from selfloop.protocols import FewShotSelector, VerifyContext
from selfloop.records import Attempt, Claim, Failure, Message, ModelState, Verdict
from selfloop.storage.recorder import LentBackend, Recorder

EarlierVerdicts = Callable[[Sequence[Claim]], list[tuple[Verdict, ...]]]
"""Returns the verdicts of all detectors listed before some component, for each claim."""


def no_earlier_verdicts(claims: Sequence[Claim]) -> list[tuple[Verdict, ...]]:
    """Return no verdict for each claim: no detector is listed before the component."""
    return [() for _ in claims]


@dataclass
class RoundContext:
    """The context in which every step of one round works.

    `failures` collects the faults outside any one attempt, and `agreement` is that of the round.
    Use the context in a `with` block, which ends the progress line of the last step.
    """

    number: int
    recipe: Recipe
    parts: Pipeline
    history: History
    failures: list[Failure] = field(default_factory=list)
    prompts_by_question: dict[str, Prompt] = field(default_factory=dict)
    agreement: float | None = None
    _task: progress.Task | None = field(init=False, default=None)
    _step: str = field(init=False, default="")
    _model: ModelState = field(init=False, default="tuned")

    def __enter__(self) -> "RoundContext":
        return self

    def __exit__(self, *error: object) -> None:
        self.end_step()

    def seed(self, *parts: str | int) -> int:
        """Return a 32-bit seed that depends on the run's seed, the round, and `parts` alone."""
        # The separator keeps ("a", "bc") and ("ab", "c") apart: no id or name contains it.
        text = "\x1f".join(map(str, (self.recipe.seed, self.number, *parts)))
        digest = blake2b(text.encode("utf-8", "replace"), digest_size=4).digest()
        return int.from_bytes(digest, "big")

    # --- the model

    @property
    def backend(self) -> Recorder:
        """Return the run's backend, bound to the step and the model at work.

        Its completions are stored under the step's name. No step is at work before the first.
        """
        backend = self.parts.backend.for_step(self._step)
        return backend.bare() if self._model == "base" else backend

    @contextmanager
    def model(self, state: ModelState) -> Iterator[None]:
        """Let `backend`, and all that is lent of it in this block, be the base or the tuned model.

        Outside of any block it is the tuned one: the model under the adapter in effect.
        """
        before, self._model = self._model, state
        try:
            yield
        finally:
            self._model = before

    def lent(self, state: ModelState) -> LentBackend:
        """Return the base or the tuned model as a component has it, at the step at work."""
        with self.model(state):
            return LentBackend(self.backend)

    def are_one(self, first: ModelState, second: ModelState) -> bool:
        """Return whether these are one model: no adapter makes them differ."""
        return first == second or self.parts.backend.adapter is None

    # --- prompts

    def prompt(self, name: str, **values: str) -> Prompt:
        """Return a prompt of the recipe, filled in, in the form that this model takes.

        The prompt `answer` is the few-shot selector's, if the recipe names one. It is the same for
        the base and the tuned model. Raises ComponentError.
        """
        # Detectors render `answer` for questions of their own: these get examples as well.
        if name == "answer" and self.parts.few_shot:
            return self.few_shot_prompts([values["question"]])[0]
        return self.recipe_prompt(name, **values)

    def recipe_prompt(self, name: str, **values: str) -> Prompt:
        """Return a prompt as the recipe's file has it, filled in."""
        return self.parts.prompts.render(name, chat=self.backend.describe().chat, **values)

    def few_shot_prompts(self, questions: Sequence[str]) -> list[Prompt]:
        """Return the few-shot selector's prompt for each question. It is asked once for each
        question.

        Raises ComponentError.
        """
        missing = [
            text for text in dict.fromkeys(questions) if text not in self.prompts_by_question
        ]
        selector = self.parts.few_shot
        if missing and selector:
            part, texts = selector.part, tuple(missing)
            # The base chooses the examples, whoever asks first.
            verify_context = VerifyContext(
                self.lent("base"),
                # not `self.prompt`, which would call the few-shot selector again
                self.recipe_prompt,
                no_earlier_verdicts,
                self.seed(),
                self.history,
            )
            # Not captured: a caller may be a detector, whose fault this is not.
            prompts = attribute_errors(selector.name, lambda: _show(part, texts, verify_context))
            self.prompts_by_question |= zip(missing, prompts, strict=True)
        return [self.prompts_by_question[text] for text in questions]

    def verify_context(
        self,
        step: str,
        component: str,
        state: ModelState,
        earlier_verdicts: EarlierVerdicts = no_earlier_verdicts,
    ) -> VerifyContext:
        """Return the context of a component that works on claims: a detector or a critic.

        `state` is the model that it has.
        """
        seed = self.seed(step, component)
        lent = self.lent(state)
        return VerifyContext(lent, self.prompt, earlier_verdicts, seed, self.history)

    # --- events for observers and the progress line

    def start_step(self, step: StepName, attempts: int) -> None:
        """Begin a step on so many attempts, and tell the observers."""
        self.end_step()
        self._task = progress.begin(f"round {self.number}/{self.recipe.rounds} {step}")
        self._step = step
        self.parts.observers.emit(StepStarted(self.number, step, attempts))

    def end_step(self) -> None:
        """End the progress line of the step at work, if there is one."""
        if self._task:
            progress.end(self._task)
            self._task = None

    def set_progress(self, done: float, total: float, unit: str, note: str = "") -> None:
        """Note how far the step at work is."""
        if self._task:
            self._task.count(done, total, unit, note)

    def advance_progress(self, count: float) -> None:
        """Note that the step at work has done `count` more."""
        if self._task:
            self._task.advance(count)

    def on_training_batch(self, done: int, of: int, loss: float) -> None:
        """Tell the observers how far the tuner is."""
        # A tuner may pass numbers of numpy or torch; events are plain data.
        batch = TrainingStep(self.number, int(done), int(of), float(loss))
        self.set_progress(batch.done, batch.of, "batches", f"loss {batch.loss:.3f}")
        self.parts.observers.emit(batch)

    def note_failure(self, failure: Failure) -> None:
        """Note a fault outside any one attempt. The same fault is noted once."""
        # A source that fails in each call of a round would fill the report otherwise.
        if failure not in self.failures:
            self.failures.append(failure)
            self.parts.observers.emit(ComponentFailed(self.number, failure))

    def all_failures(self) -> tuple[Failure, ...]:
        """Return the faults outside any one attempt, and those of observers since the last call."""
        of_observers, self.parts.observers.failures = self.parts.observers.failures, []
        return (*self.failures, *of_observers)

    def end_attempt(self, attempt: Attempt) -> Attempt:
        """Tell the observers that an attempt has ended, and return it."""
        self.parts.observers.emit(AttemptEnded(self.number, attempt))
        return attempt


def _show(
    selector: FewShotSelector, questions: tuple[str, ...], verify_context: VerifyContext
) -> list[Prompt]:
    prompts = exactly(selector.build_prompts(questions, verify_context), len(questions))
    return [_validate_prompt(prompt) for prompt in prompts]


def _validate_prompt(prompt: object) -> Prompt:
    """Return a prompt with exactly the types that it must have. Raises TypeError."""
    if isinstance(prompt, str):
        return str(prompt)
    if not isinstance(prompt, tuple) or not prompt:
        raise TypeError(f"gave {prompt!r:.60}, which is neither text nor a tuple of Message")
    return tuple(validate_record(message, Message) for message in prompt)
