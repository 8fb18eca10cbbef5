"""The nouns of selfloop: questions, completions, verdicts, beliefs, rounds. All are plain data.

All are frozen: a step returns changed copies. The names of the fields are stored in every run's
database, so they stay as they are.

Three things are kept apart everywhere: the detector broke (`Failure`), the detector abstains
(`Verdict.confidence is None`), the model declined (`Attempt.decision == "declined"`).
"""

import json
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal

# The relation of a question to an earlier one; see `Question.variant_of`.
Variant = Literal["", "reworded", "reversed", "swapped"]
# The end of an attempt. The step `decide` gives the first three. A "dropped" question was never
# answered, and a "failed" one lost its answer to a fault.
Decision = Literal["belief", "declined", "undecided", "dropped", "failed"]


# --- requests to a model, and its results


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. The defaults of `top_k`, `top_p` and `min_p` cut off no token.

    * `temperature`: 0 is greedy.
    * `max_tokens`, `stop`: a completion ends at the model's end token, before the first of the
      stops, or after `max_tokens`.
    * `repetition_penalty`: divides the logits of tokens that are in the prompt or the text already
      (CTRL, Keskar et al. 2019, arXiv 1909.05858); 1 is none.
    * `grammar` (GBNF, from its rule `root`), `json_schema`: constrain the text.
    * `decline_bias`: nats that are added to the log-odds of declining, at the first token of the
      text: that of "I don't know".
    * `skip_blank`: white space at the beginning is not a part of the completion. Its tokens are
      left out, and a stop inside it does not count.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0
    grammar: str = ""
    json_schema: str = ""
    decline_bias: float = 0.0
    skip_blank: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and the number `n` of completions wanted of it.

    * `prompt`: plain text, or chat messages that the backend puts through the model's chat
      template. Text is data: nothing in it is read as a special token.
    * `seed`: of the samples; a greedy completion does not depend on it.
    * `open_turn`: the last message is left open, and the model continues it. After an empty user
      turn it asks; after an assistant turn that ends in "Answer:" it answers in that form.
    * `skip`: samples (numbered from 0) that are not wanted, because they are stored already.
    * `entropy`: the completions have `entropies` and a `margin` (capability `entropies`).
    """

    prompt: str | tuple[Message, ...]
    sampling: Sampling = Sampling()
    n: int = 1
    seed: int = 0
    open_turn: bool = False
    skip: tuple[int, ...] = ()
    entropy: bool = False


@dataclass(frozen=True, slots=True)
class Continuation:
    """A prompt as in `Request`, and a text to be read after it, or the tokens of a `Completion`.

    A token that reaches over the end of the prompt counts as the first of the continuation.
    """

    prompt: str | tuple[Message, ...]
    text: str | tuple[int, ...]
    open_turn: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample of a request.

    * `tokens`, `logprobs`: the ids and natural-log probabilities of its tokens, in order. The
      probabilities are those of the model's full softmax at temperature 1, whatever the sampling.
    * `finish`: "length" if `max_tokens` ended it.
    * `sample`: its number among the samples of the request, from 0.
    * `adapter`: the sha256 of the adapter in effect; None for the bare model.
    * `entropies`: of the distribution (the same softmax) at each token, in nats. Their mean is the
      mean token entropy.
    * `margin`: the probability of the most likely first token less that of the second.
    * `thought`: the marked thought before the answer. All other fields are about the answer alone.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: Literal["stop", "length"] = "stop"
    sample: int = 0
    adapter: str | None = None
    entropies: tuple[float, ...] | None = None
    margin: float | None = None
    thought: str = ""


# --- questions, and the judgements of components on them


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its source, and the answers that count as correct, if the user has some.

    * `gold`, `gold_pattern`: the correct answers, or a regular expression that they match.
    * `answer`: an answer to be judged in place of the model's own draft. `explanation` says in a
      sentence why it is right.
    * `via`: the part of the source that led to the question: a frame, an entity.
    * `variant_of`: the text of an earlier question that this one is a `variant` of. It asks for the
      same in other words ("reworded"), from the answer's side ("reversed"), or for another thing of
      the same kind ("swapped").
    * `columns`: the other columns of the row that it was read from, as a JSON object.
    """

    text: str
    source: str
    topic: str = ""
    gold: tuple[str, ...] = ()
    gold_pattern: str = ""
    answer: str = ""
    explanation: str = ""
    via: str = ""
    variant_of: str = ""
    variant: Variant = ""
    columns: str = ""

    @property
    def other_columns(self) -> dict[str, Any]:
        """Return the other columns of the question's row by name, `id` among them."""
        return dict(json.loads(self.columns)) if self.columns else {}

    @property
    def id(self) -> str:
        """Return twelve hexadecimal digits that depend on the text alone."""
        # lone surrogates of a broken input are part of the text, and have an id as well
        return blake2b(self.text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Failure:
    """A component raised, or returned the wrong thing. `type` is the exception's class name."""

    step: str
    component: str
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Score:
    """A scorer's number about a question (higher is better) and its reason in a few words."""

    scorer: str
    value: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A detector's confidence in [0, 1] that `candidate` is true; None if the detector abstains."""

    detector: str
    confidence: float | None
    reason: str = ""
    candidate: Literal["draft", "revision"] = "draft"


@dataclass(frozen=True, slots=True)
class Claim:
    """An answer for a detector to judge, with the model's other answers to the same question.

    `candidate` is "revision" if the answer was written after a critique; samples never are. The
    log-probabilities of a revision are those after the bare question, or none. `verdicts` are those
    of the detectors listed before.
    """

    question: Question
    answer: Completion
    samples: tuple[Completion, ...] = ()
    candidate: Literal["draft", "revision"] = "draft"
    verdicts: tuple[Verdict, ...] = ()


# --- results of a round


@dataclass(frozen=True, slots=True)
class Belief:
    """An answer that the run believes, from which round, and the adapter that it came under."""

    question: Question
    answer: str
    confidence: float
    round: int
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a question in a round: an `Attempt` in short.

    The last outcome of a question is the one that counts.
    """

    question: Question
    decision: Decision
    answer: str = ""
    confidence: float | None = None
    round: int = 0
    adapter: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Everything that happened to one question in one round. Steps return changed copies of it.

    `lowers` is the new outcome of an earlier belief that this answer contradicts.
    """

    question: Question
    scores: tuple[Score, ...] = ()
    draft: Completion | None = None
    samples: tuple[Completion, ...] = ()
    critique: Completion | None = None
    revision: Completion | None = None
    verdicts: tuple[Verdict, ...] = ()
    failures: tuple[Failure, ...] = ()
    decision: Decision | None = None
    reason: str = ""
    chosen: Literal["draft", "revision"] = "draft"
    confidence: float | None = None
    lowers: Outcome | None = None

    @property
    def live(self) -> bool:
        """Return whether later steps work on this attempt: it is not decided yet."""
        return self.decision is None

    @property
    def answer(self) -> str:
        """Return the text of the chosen candidate, or an empty string."""
        # Completions keep the space that a model writes before its answer.
        completion = self.draft if self.chosen == "draft" else self.revision
        return completion.text.strip() if completion else ""

    def confidences(self, candidate: str) -> dict[str, float | None]:
        """Return each detector's confidence in "draft" or "revision"; None if it abstained.

        The detectors are in the order of the recipe.
        """
        return {v.detector: v.confidence for v in self.verdicts if v.candidate == candidate}

    def failed(self, failure: Failure, *, fatal: bool = True) -> "Attempt":
        """Return this attempt with one more failure. A fatal one ends the attempt."""
        # An attempt that was decided keeps its decision: a later fault cannot undo it.
        failures = (*self.failures, failure)
        if fatal and self.live:
            return replace(
                self,
                failures=failures,
                decision="failed",
                reason=f"{failure.component}: {failure.message}",
            )
        return replace(self, failures=failures)


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA weights in a file, which are added `scale` times.

    The `sha256` of the file is stored with every completion made under it.
    """

    path: str
    sha256: str
    round: int = 0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class AdapterProof:
    """Evidence that a loaded adapter has an effect.

    `change` is the largest change that it makes to the log-probabilities of a test text, in nats.
    """

    adapter: Adapter | None
    change: float


@dataclass(frozen=True, slots=True)
class Round:
    """One pass ask -> decide (-> tune) after its end. `attempts` has the dropped questions too.

    `agreement` is the share of the questions to which the base and the tuned model drafted the same
    answer; None where only one of them drafted.
    """

    number: int
    attempts: tuple[Attempt, ...]
    adapter: Adapter | None = None
    failures: tuple[Failure, ...] = ()
    agreement: float | None = None

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        """Return the beliefs of this round alone, in the order asked."""
        beliefs: list[Belief] = []
        for attempt in self.attempts:
            if attempt.decision == "belief":
                confidence = attempt.confidence or 0.0
                adapter = attempt.draft.adapter if attempt.draft else None
                belief = Belief(attempt.question, attempt.answer, confidence, self.number, adapter)
                beliefs.append(belief)
        return tuple(beliefs)

    def count(self, decision: Decision) -> int:
        """Return how many attempts ended with this decision."""
        return sum(a.decision == decision for a in self.attempts)


# --- the model


# The model without an adapter, or under the adapter that the run was tuned to last. Where there is
# no adapter the two are one.
ModelState = Literal["base", "tuned"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A backend's description of its model.

    `context` is in tokens, `chat` says whether the model has a chat template, and `sha256` is that
    of the model file.
    """

    name: str
    architecture: str = ""
    parameters: int = 0
    context: int = 0
    chat: bool = False
    capabilities: frozenset[str] = field(default_factory=frozenset[str])
    file: str = ""
    sha256: str = ""
    versions: tuple[tuple[str, str], ...] = ()
