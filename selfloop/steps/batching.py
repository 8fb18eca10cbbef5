"""One batch for all attempts of a step: requests to generate, and texts to read.

Completions are put in their places by index, so the order in which a backend finishes does not
matter.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from selfloop.config.prompts import Prompt, is_open
from selfloop.errors import RequestError
from selfloop.events import StepName
from selfloop.guard import Failed, capture
from selfloop.records import Attempt, Completion, Continuation, Failure, Request, Sampling
from selfloop.steps.context import RoundContext
from selfloop.text.thoughts import answered, without_thought


@dataclass
class SentRequest:
    """A request of a batch, the index of its attempt, and its completions in order of arrival."""

    index: int
    request: Request
    completions: list[Completion] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Return whether all completions of the request have come."""
        return len(self.completions) == self.request.n

    def by_sample(self) -> list[Completion]:
        """Return the completions in the order of their samples."""
        return sorted(self.completions, key=lambda completion: completion.sample)


def request_for(
    prompt: Prompt, sampling: Sampling, *, n: int = 1, seed: int = 0, entropy: bool = False
) -> Request:
    """Return the request for `n` completions of a prompt."""
    return Request(prompt, sampling, n=n, seed=seed, open_turn=is_open(prompt), entropy=entropy)


def generate_batch(
    context: RoundContext,
    step: StepName,
    attempts: Sequence[Attempt],
    requests_of: Callable[[Attempt], list[Request]],
    with_completions: Callable[[Attempt, list[list[Completion]]], Attempt],
) -> list[Attempt]:
    """Send the requests of all live attempts as one batch; return the attempts with the results.

    `with_completions` gets an attempt and the completions of each of its requests, by sample. An
    attempt that lacks a completion gets a failure. That is fatal in the step `answer`: an attempt
    without a critique or a revision goes on.
    """
    context.start_step(step, sum(attempt.live for attempt in attempts))
    return generate_more(context, step, attempts, requests_of, with_completions)


def generate_more(
    context: RoundContext,
    step: StepName,
    attempts: Sequence[Attempt],
    requests_of: Callable[[Attempt], list[Request]],
    with_completions: Callable[[Attempt, list[list[Completion]]], Attempt],
) -> list[Attempt]:
    """Do as `generate_batch` does, in a step that has begun already."""
    live = [i for i, attempt in enumerate(attempts) if attempt.live]
    # 1. All requests of all attempts. An attempt that has none (no critique) stays as it is.
    sent_by_attempt: dict[int, list[SentRequest]] = {}
    for i in live:
        if requests := requests_of(attempts[i]):
            sent_by_attempt[i] = [SentRequest(i, request) for request in requests]
    # 2. One batch: the backend decides how many run side by side.
    batch = list(chain.from_iterable(sent_by_attempt.values()))
    refusals, incomplete = _send(context, step, batch)
    _finish_thoughts(context, step, batch)
    # 3. Back to the attempts. Results from before the backend broke are kept.
    results = list(attempts)
    for i, sent in sent_by_attempt.items():
        if i in refusals or not all(one_request.complete for one_request in sent):
            failure = refusals.get(i, incomplete)
            results[i] = results[i].failed(failure, fatal=step == "answer")
            if not results[i].live:
                context.end_attempt(results[i])
        else:
            completions = [one_request.by_sample() for one_request in sent]
            results[i] = with_completions(results[i], completions)
    return results


def _send(
    context: RoundContext, step: StepName, batch: Sequence[SentRequest]
) -> tuple[dict[int, Failure], Failure]:
    """Let the backend generate, and put its completions into `batch`.

    Return the refusal of each attempt that has one, and the failure of those that lack a completion
    for another reason: the exception that ended the batch, or that it ended too early.
    """
    kind = context.recipe.backend.kind
    refusals: dict[int, Failure] = {}
    outcome = capture(step, kind, lambda: _receive(context, step, batch, refusals))
    if isinstance(outcome, Failed):
        return refusals, outcome.failure
    ended_early = "the backend ended before all completions were there"
    return refusals, Failure(step, kind, "IncompleteBatch", ended_early)


def _receive(
    context: RoundContext, step: str, batch: Sequence[SentRequest], refusals: dict[int, Failure]
) -> None:
    # `batch` and `refusals` are filled as results come: if the backend raises in the middle, the
    # completions that came before stay.
    requests = [sent.request for sent in batch]
    for position, result in context.backend.generate(requests):
        sent = batch[position]  # results come in any order
        if isinstance(result, RequestError):
            refusals[sent.index] = _refusal(context, step, result)
        else:
            sent.completions.append(result)


def _refusal(context: RoundContext, step: str, error: RequestError) -> Failure:
    return Failure(step, context.recipe.backend.kind, type(error).__name__, str(error))


def _finish_thoughts(context: RoundContext, step: StepName, batch: Sequence[SentRequest]) -> None:
    """Let the model end its thoughts, and put the answers in the place of these completions."""

    def generate(requests: list[Request]) -> list[Completion | None]:
        sent = [SentRequest(i, request) for i, request in enumerate(requests)]
        refusals: dict[int, Failure] = {}
        kind = context.recipe.backend.kind
        outcome = capture(step, kind, lambda: _receive(context, step, sent, refusals))
        if isinstance(outcome, Failed):
            context.note_failure(outcome.failure)
        for failure in refusals.values():
            context.note_failure(failure)
        # A thought that could not be ended stays as it is.
        return [next(iter(one_request.completions), None) for one_request in sent]

    def seed(request: Request, sample: int) -> int:
        return context.seed("thought", request.seed, sample)

    drawn: list[tuple[Request, Completion]] = []
    for sent in batch:
        drawn += [(sent.request, completion) for completion in sent.completions]
    # `answered` keeps the order, so each request takes back as many completions as it gave.
    finished = iter(answered(drawn, generate, seed, context.recipe.answer.thought_tokens))
    for sent in batch:
        sent.completions = [next(finished) for _ in sent.completions]


def read_logprobs(
    context: RoundContext, step: str, texts: Iterable[tuple[str, str]]
) -> list[tuple[float, ...] | Failure]:
    """Return the log-probabilities (nats) of each answer's tokens after its bare question.

    `texts` are pairs of question and answer.
    """
    texts = list(texts)
    if not texts:
        return []

    def read() -> list[tuple[float, ...] | RequestError]:
        pairs: list[Continuation] = []
        for question, answer in texts:
            prompt = context.prompt("answer", question=question)
            # An open turn continues the prompt's own "Answer:", as the draft did.
            pairs.append(Continuation(prompt, as_written(context, answer), is_open(prompt)))
        return context.backend.loglikelihood(pairs)

    readings = capture(step, context.recipe.backend.kind, read)
    if isinstance(readings, Failed):
        return [readings.failure] * len(texts)
    return [
        _refusal(context, step, reading) if isinstance(reading, RequestError) else reading
        for reading in readings
    ]


def reread(
    context: RoundContext, step: str, completions: Iterable[tuple[str, Completion]]
) -> list[tuple[Completion, Failure | None]]:
    """Return each completion with the log-probabilities that it has after its bare question.

    `completions` come with their questions. All measurements that a completion was generated with
    are dropped. One that cannot be read has no log-probabilities, and its failure is returned.
    """
    pairs = list(completions)
    texts = [(question, completion.text) for question, completion in pairs]
    results: list[tuple[Completion, Failure | None]] = []
    readings = read_logprobs(context, step, texts)
    for (_, completion), reading in zip(pairs, readings, strict=True):
        failure = reading if isinstance(reading, Failure) else None
        logprobs = () if isinstance(reading, Failure) else reading
        results.append((replace(without_measurements(completion), logprobs=logprobs), failure))
    return results


def without_measurements(completion: Completion) -> Completion:
    """Return a completion without the numbers that it was generated with."""
    return replace(completion, tokens=(), logprobs=(), entropies=None, margin=None)


def as_written(context: RoundContext, answer: str) -> str:
    """Return an answer as the model writes it: after a space, up to the stop that ends it."""
    stops = context.recipe.answer.stop
    return f" {without_thought(answer).strip()}{stops[0] if stops else ''}"
