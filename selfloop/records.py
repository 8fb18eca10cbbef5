"""The nouns of selfloop: what was asked, what came out, what is held true. All frozen, all plain
data.

Three things are kept apart everywhere: the verifier broke (`Failure`), the verifier cannot tell
(`Verdict.confidence is None`), the model declined (`Attempt.decision == "declined"`).
"""

import json
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal

Variant = Literal["", "reworded", "reversed", "swapped"]
Decision = Literal["belief", "declined", "undecided", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 cut
    nothing.

    `repetition_penalty` divides the logits of tokens that are in the prompt or the text already
    (CTRL, Keskar et al. 2019); 1 is none. `grammar` (GBNF, from its rule `root`) or `json_schema`
    is what the text keeps to. `careful` nats are added to the log-odds of declining, where the text
    begins: of the first token of "I don't know". A completion ends at a token that ends the text,
    before the first of `stop`, or after `max_tokens`. White space that it begins with is no part of
    it with `skip_blank`: its tokens are left out, and no stop is looked for in it.
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
    careful: float = 0.0
    skip_blank: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and the `n` completions wanted of it.

    `prompt` is plain text, or chat messages that the backend puts through the model's chat
    template. Text is data: what looks like a special token in it is never read as one. With
    `open_turn` the last message is left open and the model goes on writing it: an empty user turn,
    and it asks; an assistant turn that ends in "Answer:", and it answers in that form. Samples are
    numbered from 0; those in `skip` are not wanted, for they are there already. With `entropy` the
    completions have `entropies` and a `margin` (capability `entropies`).
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
    """A prompt as in `Request`, and what is said to follow it: text, or tokens as a `Completion`
    has them.

    Where a token of the whole text reaches over the prompt's end, it counts as the continuation's
    first.
    """

    prompt: str | tuple[Message, ...]
    text: str | tuple[int, ...]
    open_turn: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample: its text, its token ids, and the natural-log probability of each token, in order.

    Log-probabilities are under the model's full softmax at temperature 1, whatever the sampling
    was. `entropies` are those of the distributions that the tokens were drawn from, in nats, under
    the same softmax; their mean is the mean token entropy. `margin` is by how much the likeliest
    first token is more probable than the second likeliest, and comes with the entropies. `adapter`
    is the sha256 of the adapter that was loaded, None for the bare model. `thought` is the marked
    thought before the answer; all else is about the answer alone.
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


@dataclass(frozen=True, slots=True)
class Question:
    """A question's text, where it came from, and, if the user has them, answers that count as
    right.

    `gold_pattern` is a regular expression that a right answer must match, in place of the list
    `gold`. `answer` is one that is to be judged, in place of the model's own draft; `explanation`
    says in a sentence why it is right. `via` is what in the source led to the question: a frame, an
    entity. `variant_of` is the text of an earlier question that this one asks for again in other
    words (`reworded`), from the answer's side (`reversed`), or of something else of the same kind
    (`swapped`). `columns` are the other columns of the row that it was read from, as a JSON object.
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
        """Return the columns of its row that are not the question's own, `id` among them, by name."""
        return dict(json.loads(self.columns)) if self.columns else {}

    @property
    def id(self) -> str:
        """Return twelve hex digits that depend on the text alone."""
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
    """A scorer's number about a question, higher is better, and in a few words why."""

    scorer: str
    value: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verifier's confidence in [0, 1] that `candidate` is true; None when it cannot tell (it abstains)."""

    verifier: str
    confidence: float | None
    reason: str = ""
    candidate: Literal["draft", "revision"] = "draft"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a verifier judges: an answer to a question, and what else the model said to that
    question.

    `candidate` is "revision" if the answer was written after a critique; samples never were, and
    the log-probabilities of a revision are those that it has after the bare question, or none.
    `verdicts` are those of the verifiers that came before.
    """

    question: Question
    answer: Completion
    samples: tuple[Completion, ...] = ()
    candidate: Literal["draft", "revision"] = "draft"
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Belief:
    """An answer that is kept: how sure, since which round, and under which adapter it was said."""

    question: Question
    answer: str
    confidence: float
    round: int
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question in a round: an `Attempt` in short.

    Its last outcome is what holds.
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

    `lowers` is what becomes of an earlier belief that this answer contradicts.
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
        """Return whether later steps still work on this attempt."""
        return self.decision is None

    @property
    def answer(self) -> str:
        """Return the text of the chosen candidate, or an empty string."""
        completion = self.draft if self.chosen == "draft" else self.revision
        return completion.text.strip() if completion else ""

    def confidences(self, candidate: str) -> dict[str, float | None]:
        """Return what each verifier gave to the draft or the revision, in the recipe's order; None: it abstained."""
        return {v.verifier: v.confidence for v in self.verdicts if v.candidate == candidate}

    def failed(self, failure: Failure, *, fatal: bool = True) -> "Attempt":
        """Return this attempt with one more failure; a fatal one ends its way through the steps."""
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
    """LoRA weights in a file, added `scale` times; `sha256` of that file goes into every completion made with it."""

    path: str
    sha256: str
    round: int = 0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class AdapterProof:
    """Whether a loaded adapter works: the largest change it made to a probe's log-probabilities (nats)."""

    adapter: Adapter | None
    change: float


@dataclass(frozen=True, slots=True)
class Round:
    """One pass ask -> decide (-> tune), as it ended. `attempts` holds the dropped questions too."""

    number: int
    attempts: tuple[Attempt, ...]
    adapter: Adapter | None = None
    failures: tuple[Failure, ...] = ()

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        """Return what this round found true, in the order asked."""
        return tuple(
            Belief(
                a.question,
                a.answer,
                a.confidence or 0.0,
                self.number,
                a.draft.adapter if a.draft else None,
            )
            for a in self.attempts
            if a.decision == "belief"
        )

    def count(self, decision: Decision) -> int:
        """Return how many attempts ended with this decision."""
        return sum(a.decision == decision for a in self.attempts)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a backend says of its model.

    `chat` is whether it has a chat template; `sha256` is the file's.
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
