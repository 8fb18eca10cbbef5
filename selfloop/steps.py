"""The steps of a round: ask · answer · critique · revise · verify · decide · tune.

Each takes attempts and returns attempts, in the same order. What a component does wrong ends as a `Failure`
on the attempts it was working on (`guard.py`), and the others go on. What the model is asked is drawn from
seeds that depend only on the run, the round and the question, so a step that runs again asks the same.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from itertools import groupby, islice
from pathlib import Path

from selfloop.answers import declines, normalise
from selfloop.assemble import Named, Parts
from selfloop.errors import RequestError
from selfloop.events import AttemptEnded, StepName, StepStarted, Trouble
from selfloop.guard import Broken, guarded, guarded_each, sound
from selfloop.prompts import Prompt, is_open
from selfloop.protocols import Asking, Judging, QuestionSource, Scorer, Verifier
from selfloop.recipe import Recipe
from selfloop.records import (
    Adapter,
    Attempt,
    Claim,
    Completion,
    Continuation,
    Decision,
    Failure,
    Past,
    Question,
    Request,
    Round,
    Sampling,
    Score,
    Verdict,
)
from selfloop.text import encodable

ADAPTERS = "adapters"  # the folder in the run's own that tuners write into


@dataclass
class Turn:
    """What every step of one round works with; `failures` collects what went wrong outside any one attempt."""

    number: int
    recipe: Recipe
    parts: Parts
    past: Past
    failures: list[Failure] = field(default_factory=list)

    def seed(self, *what: str | int) -> int:
        """Return a 32-bit seed that depends on the run's seed, the round, and `what`."""
        text = "\x1f".join(map(str, (self.recipe.seed, self.number, *what)))
        return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=4).digest(), "big")

    def prompt(self, name: str, **values: str) -> Prompt:
        """Return a prompt of the recipe, filled in, in the form this model takes."""
        return self.parts.prompts.render(name, chat=self.parts.backend.describe().chat, **values)

    def start(self, step: StepName, attempts: int) -> None:
        """Tell the recorder and the observers that a step begins."""
        self.parts.backend.step = step
        self.parts.notice(StepStarted(self.number, step, attempts))

    def trouble(self, failure: Failure) -> None:
        """Note something that failed outside any one attempt, once."""
        if failure not in self.failures:
            self.failures.append(failure)
            self.parts.notice(Trouble(self.number, failure))

    def all_failures(self) -> tuple[Failure, ...]:
        """Return what went wrong outside any one attempt, the observers' failures since the last call included."""
        lost, self.parts.notice.failures = self.parts.notice.failures, []
        return (*self.failures, *lost)

    def end(self, attempt: Attempt) -> Attempt:
        """Tell the observers that an attempt has come to its end."""
        self.parts.notice(AttemptEnded(self.number, attempt))
        return attempt


def ask(turn: Turn) -> list[Attempt]:
    """Ask the sources, in turns, until enough questions pass the scorers; the dropped ones stay on record."""
    wanted, attempts = turn.recipe.ask.questions, list[Attempt]()
    turn.start("ask", wanted)
    dry: set[str] = set()
    for number in range(turn.recipe.ask.turns):
        missing = wanted - sum(attempt.live for attempt in attempts)
        if missing <= 0 or len(dry) == len(turn.parts.sources):
            break
        past = turn.past.and_asked(attempts)
        attempts += score(turn, [Attempt(q) for q in _draw(turn, past, number, missing, dry)], past)
    surplus = {id(attempt) for attempt in [a for a in attempts if a.live][wanted:]}
    return [attempt for attempt in attempts if id(attempt) not in surplus]  # a later round may ask these


def _draw(turn: Turn, past: Past, number: int, missing: int, dry: set[str]) -> list[Question]:
    """Return new questions of all sources that still have some, by their shares."""
    ready = [s for s in turn.parts.sources if s.name not in dry]
    total = sum(source.share for source in ready)
    drawn: list[Question] = []
    for source in ready:
        count = max(1, round(missing * source.share / total))
        seed = turn.seed("ask", source.name, number)
        asking = Asking(count, turn.number, number, seed, turn.parts.backend, past, turn.prompt)
        given = guarded("ask", source.name, partial(_listed, source.part, asking))
        if isinstance(given, Broken):
            turn.trouble(given.failure)
            given = []
        checked = [guarded("ask", source.name, partial(sound, question, Question)) for question in given]
        for lost in (one for one in checked if isinstance(one, Broken)):
            turn.trouble(lost.failure)
        good = [one for one in checked if not isinstance(one, Broken)]
        if not good:
            dry.add(source.name)
        drawn += [replace(q, text=encodable(q.text)) for q in good]
    return drawn


def _listed(source: QuestionSource, asking: Asking) -> list[Question]:
    return list(islice(source.ask(asking), 100 + 10 * asking.n))  # a generator may have no end


def score(turn: Turn, attempts: Sequence[Attempt], past: Past) -> list[Attempt]:
    """Score the questions; drop the ones below a scorer's minimum. Later scorers see only what is left."""
    scored = list(attempts)
    for scorer in turn.parts.scorers:
        live = [i for i, a in enumerate(scored) if a.live]
        questions = [scored[i].question for i in live]
        results = guarded_each("ask", scorer.name, partial(_scores, scorer.part, past), questions, Score, turn.trouble)
        for i, result in zip(live, results, strict=True):
            if isinstance(result, Broken):
                scored[i] = turn.end(scored[i].failed(result.failure))
                continue
            scored[i] = replace(scored[i], scores=(*scored[i].scores, replace(result, scorer=scorer.name)))
            if scorer.minimum is not None and not result.value >= scorer.minimum:
                reason = f"{scorer.name}: {result.reason or f'{result.value:.2f} is below {scorer.minimum}'}"
                scored[i] = turn.end(replace(scored[i], decision="dropped", reason=reason))
    return scored


def _scores(scorer: Scorer, past: Past, questions: Sequence[Question]) -> Sequence[Score]:
    return scorer.score(questions, past)


def answer(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Draw the greedy draft, unless the question came with an answer to judge, and the samples that verifiers share."""
    how = turn.recipe.answer
    stop = tuple(how.stop)
    greedy = Sampling(max_tokens=how.max_tokens, stop=stop)
    drawn = Sampling(how.temperature, top_p=how.top_p, max_tokens=how.max_tokens, stop=stop)
    entropy = "entropies" in turn.parts.backend.describe().capabilities

    def requests(attempt: Attempt) -> list[Request]:
        prompt = turn.prompt("answer", question=attempt.question.text)
        seed = turn.seed("answer", attempt.question.id)
        draft = [] if attempt.draft else [_request(prompt, greedy, entropy=entropy)]
        return [*draft, _request(prompt, drawn, n=how.samples, seed=seed)]

    def keep(attempt: Attempt, found: list[list[Completion]]) -> Attempt:
        *draft, samples = found
        return replace(attempt, draft=draft[0][0] if draft else attempt.draft, samples=tuple(samples))

    return _generated(turn, "answer", _given(turn, attempts), requests, keep)


def _given(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Read the answers that came with questions, so that they have log-probabilities as if the model had said them."""
    own = [i for i, attempt in enumerate(attempts) if attempt.live and attempt.question.answer]
    pairs = [_as_read(turn, attempts[i].question) for i in own]
    kind, done = turn.recipe.backend.kind, list(attempts)
    found = guarded("answer", kind, lambda: turn.parts.backend.loglikelihood(pairs)) if own else []
    for place, i in enumerate(own):
        logprobs = RequestError(found.failure.message) if isinstance(found, Broken) else found[place]
        if isinstance(logprobs, RequestError):
            done[i] = turn.end(done[i].failed(Failure("answer", kind, type(logprobs).__name__, str(logprobs))))
        else:
            done[i] = replace(done[i], draft=Completion(str(pairs[place].text), logprobs=logprobs))
    return done


def _as_read(turn: Turn, question: Question) -> Continuation:
    prompt, stop = turn.prompt("answer", question=question.text), turn.recipe.answer.stop
    return Continuation(prompt, f" {question.answer.strip()}{stop[0] if stop else ''}", is_open(prompt))


def critique(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let the model say what is wrong with its draft."""
    how = turn.recipe.critique
    if how.mode == "none":
        return list(attempts)

    def requests(attempt: Attempt) -> list[Request]:
        prompt = turn.prompt("critique", question=attempt.question.text, draft=attempt.answer)
        return [_request(prompt, Sampling(max_tokens=how.max_tokens, stop=("\n",)))]

    def keep(attempt: Attempt, found: list[list[Completion]]) -> Attempt:
        return replace(attempt, critique=found[0][0])

    return _generated(turn, "critique", attempts, requests, keep)


def revise(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let the model answer again with the critique before it."""
    if turn.recipe.critique.mode == "none":
        return list(attempts)
    how = turn.recipe.answer

    def requests(attempt: Attempt) -> list[Request]:
        noted = attempt.critique.text.strip() if attempt.critique else ""
        prompt = turn.prompt("revise", question=attempt.question.text, draft=attempt.answer, critique=noted)
        sampling = Sampling(max_tokens=how.max_tokens, stop=tuple(how.stop))
        return [_request(prompt, sampling)]

    def keep(attempt: Attempt, found: list[list[Completion]]) -> Attempt:
        return replace(attempt, revision=found[0][0])

    return _generated(turn, "revise", attempts, requests, keep)


def _request(prompt: Prompt, sampling: Sampling, *, n: int = 1, seed: int = 0, entropy: bool = False) -> Request:
    return Request(prompt, sampling, n=n, seed=seed, open_turn=is_open(prompt), entropy=entropy)


def _generated(
    turn: Turn,
    step: StepName,
    attempts: Sequence[Attempt],
    requests: Callable[[Attempt], list[Request]],
    keep: Callable[[Attempt, list[list[Completion]]], Attempt],
) -> list[Attempt]:
    """Send the requests of all live attempts as one batch, and `keep` for each attempt what came of its own.

    An attempt without an answer has failed; one that lacks only a critique or a revision goes on without.
    """
    live = [i for i, attempt in enumerate(attempts) if attempt.live]
    turn.start(step, len(live))
    batch = [(i, request) for i in live for request in requests(attempts[i])]
    found: list[list[Completion]] = [[] for _ in batch]
    refused: dict[int, Failure] = {}
    kind = turn.recipe.backend.kind
    broken = guarded(step, kind, lambda: _collect(turn, step, batch, found, refused))
    lost = Failure(step, kind, "IncompleteBatch", "the backend ended before all completions were there")
    if isinstance(broken, Broken):
        lost = broken.failure
    done = list(attempts)
    for i, own in groupby(range(len(batch)), key=lambda position: batch[position][0]):
        results = [(batch[p][1], sorted(found[p], key=lambda c: c.sample)) for p in own]
        if i in refused or any(len(got) != request.n for request, got in results):
            done[i] = done[i].failed(refused.get(i, lost), fatal=step == "answer")
            if not done[i].live:
                turn.end(done[i])
        else:
            done[i] = keep(done[i], [got for _, got in results])
    return done


def _collect(
    turn: Turn,
    step: str,
    batch: list[tuple[int, Request]],
    found: list[list[Completion]],
    refused: dict[int, Failure],
) -> None:
    for position, result in turn.parts.backend.generate([request for _, request in batch]):
        if isinstance(result, RequestError):
            refused[batch[position][0]] = Failure(step, turn.recipe.backend.kind, type(result).__name__, str(result))
        else:
            found[position].append(result)


def verify(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let each verifier judge each draft, and each revision that says something else. None sees the critique."""
    done = list(attempts)
    claims = [(i, claim) for i, a in enumerate(attempts) if a.live for claim in _claims(a)]
    turn.start("verify", sum(a.live for a in attempts))
    found = _judged(turn, turn.parts.verifiers, [claim for _, claim in claims])
    for (i, _), results in zip(claims, found, strict=True):
        for result in results:
            if isinstance(result, Failure):
                done[i] = done[i].failed(result, fatal=False)
            else:
                done[i] = replace(done[i], verdicts=(*done[i].verdicts, result))
    return done


def _judged(
    turn: Turn, verifiers: Sequence[Named[Verifier]], claims: Sequence[Claim]
) -> list[tuple[Verdict | Failure, ...]]:
    """Return what each verifier says of each claim. Each is shown what those before it said."""
    found = [tuple[Verdict | Failure, ...]() for _ in claims]
    for k, verifier in enumerate(verifiers):
        shown = [replace(c, verdicts=_verdicts(own)) for c, own in zip(claims, found, strict=True)]
        before = partial(_rejudged, turn, verifiers[:k])
        judging = Judging(turn.parts.backend, turn.prompt, before, turn.seed("verify", verifier.name))
        judge = partial(_judge, verifier.part, judging)
        results = guarded_each("verify", verifier.name, judge, shown, Verdict, turn.trouble)
        checked = [_sound(verifier.name, c, r) for c, r in zip(claims, results, strict=True)]
        found = [(*own, one) for own, one in zip(found, checked, strict=True)]
    return found


def _judge(verifier: Verifier, judging: Judging, claims: Sequence[Claim]) -> Sequence[Verdict]:
    return verifier.verify(claims, judging)


def _rejudged(turn: Turn, verifiers: Sequence[Named[Verifier]], claims: Sequence[Claim]) -> list[tuple[Verdict, ...]]:
    return [_verdicts(own) for own in _judged(turn, verifiers, claims)]


def _verdicts(found: Iterable[Verdict | Failure]) -> tuple[Verdict, ...]:
    return tuple(one for one in found if isinstance(one, Verdict))


def _sound(name: str, claim: Claim, result: Verdict | Broken) -> Verdict | Failure:
    if isinstance(result, Broken):
        return result.failure
    if result.confidence is not None and not 0 <= result.confidence <= 1:
        return Failure("verify", name, "ValueError", f"confidence {result.confidence} is not in [0, 1]")
    return replace(result, verifier=name, candidate=claim.candidate)


def _claims(attempt: Attempt) -> Iterable[Claim]:
    assert attempt.draft is not None
    yield Claim(attempt.question, attempt.draft, attempt.samples)
    if attempt.revision and normalise(attempt.revision.text) != normalise(attempt.draft.text):
        # the draft was said to the bare question too: it counts as a sample of what the model says to it
        yield Claim(attempt.question, attempt.revision, (*attempt.samples, attempt.draft), "revision")


def decide(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Turn confidence into belief, declined or undecided. The last verifier that can tell has the say."""
    turn.start("decide", sum(attempt.live for attempt in attempts))
    chosen = [_chosen(attempt) if attempt.live else attempt for attempt in attempts]
    how = turn.recipe.decide
    belief = how.threshold([a.confidence for a in chosen if a.live and a.confidence is not None])
    return [turn.end(_decided(a, belief, how.declined)) if a.live else a for a in chosen]


def _chosen(attempt: Attempt) -> Attempt:
    """Choose between draft and revision; note how sure the verifiers are of the chosen one.

    A revision takes the draft's place only if the last verifier that could judge both gives it more: a critique
    is pressure, not a signal (Sharma et al. 2023, arXiv 2310.13548; Huang et al. 2023, arXiv 2310.01798).
    """
    draft, revision = _confidences(attempt, "draft"), _confidences(attempt, "revision")
    last = next((name for name in reversed(draft) if name in revision), None)
    if last is not None and revision[last] > draft[last]:
        attempt, draft = replace(attempt, chosen="revision"), revision
    if declines(attempt.answer):
        return replace(attempt, decision="declined", reason="the model declined")
    return replace(attempt, confidence=next(reversed(draft.values()), None))


def _confidences(attempt: Attempt, candidate: str) -> dict[str, float]:
    return {name: given for name, given in attempt.confidences(candidate).items() if given is not None}


def _decided(attempt: Attempt, belief: float, declined: float) -> Attempt:
    if attempt.confidence is None:
        return replace(attempt, decision="undecided", reason="no verifier could tell")
    held, refused = attempt.confidence >= belief, attempt.confidence <= declined
    decision: Decision = "belief" if held else "declined" if refused else "undecided"
    return replace(attempt, decision=decision, reason=f"confidence {attempt.confidence:.2f}")


def tune(turn: Turn, attempts: Sequence[Attempt]) -> Adapter | None:
    """Train an adapter on what holds and load it; None if there is no tuner, or it is not its round."""
    spec, tuner = turn.recipe.tuner, turn.parts.tuner
    if spec is None or tuner is None or turn.number % spec.every:
        return None
    turn.start("tune", sum(attempt.decision == "belief" for attempt in attempts))
    folder = turn.parts.folder / ADAPTERS / f"round-{turn.number:03d}"
    made = guarded("tune", tuner.name, lambda: _tuned(turn, attempts, folder))
    if isinstance(made, Broken):
        turn.trouble(made.failure)
        return None
    return made


def _tuned(turn: Turn, attempts: Sequence[Attempt], folder: Path) -> Adapter | None:
    assert turn.parts.tuner is not None
    folder.mkdir(parents=True, exist_ok=True)
    held = [*turn.past.beliefs, *Round(turn.number, tuple(attempts)).beliefs]
    made = turn.parts.tuner.part.tune(turn.number, attempts, held, folder)
    if made is None:
        return None
    made = turn.parts.at_home(replace(sound(made, Adapter), round=turn.number))
    try:
        turn.parts.load_adapter(made)
    except Exception:
        turn.parts.load_adapter(turn.past.adapter)  # the backend may be left with another, or with none
        raise
    return made
