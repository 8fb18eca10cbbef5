"""The steps of a round: ask · answer · critique · revise · verify · decide · tune.

Each takes attempts and returns attempts, in the same order. What a component does wrong ends as a
`Failure` on the attempts it was working on (`guard.py`), and the others go on. What the model is
asked is drawn from seeds that depend only on the run, the round and the question, so a step that
runs again asks the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from itertools import groupby
from pathlib import Path

from selfloop import progress
from selfloop.config.assembly import Named, Parts
from selfloop.config.prompts import Prompt, is_open
from selfloop.config.recipe import Recipe
from selfloop.contradictions import contradictions
from selfloop.errors import RequestError
from selfloop.events import AttemptEnded, BatchLearnt, StepName, StepStarted, Trouble
from selfloop.guard import (
    Failed,
    at_most,
    attribute_errors,
    capture,
    capture_each,
    exactly,
    impossible,
    validate_record,
)
from selfloop.history import Past
from selfloop.protocols import (
    Asking,
    Demonstrator,
    Judging,
    QuestionSource,
    Scorer,
    Tuning,
    Verifier,
)
from selfloop.records import (
    Adapter,
    Attempt,
    Claim,
    Completion,
    Continuation,
    Decision,
    Failure,
    Message,
    Question,
    Request,
    Sampling,
    Score,
    Verdict,
)
from selfloop.storage.recorder import LentBackend, TunersBackend
from selfloop.text.answers import declines, normalise
from selfloop.text.display import encodable
from selfloop.text.gist import gist
from selfloop.text.nonanswers import BOILERPLATE, REFUSAL, non_answer
from selfloop.text.thoughts import answered, thought, without_thought

ADAPTERS = "adapters"  # the folder in the run's own that tuners write into


@dataclass
class Turn:
    """What every step of one round works with; `failures` collects what went wrong outside any one attempt."""

    number: int
    recipe: Recipe
    parts: Parts
    past: Past
    failures: list[Failure] = field(default_factory=list)
    shown: dict[str, Prompt] = field(default_factory=dict)
    at_work: progress.Task | None = None  # the step

    def __enter__(self) -> "Turn":
        return self

    def __exit__(self, *error: object) -> None:
        self.end_step()

    def seed(self, *what: str | int) -> int:
        """Return a 32-bit seed that depends on the run's seed, the round, and `what`."""
        text = "\x1f".join(map(str, (self.recipe.seed, self.number, *what)))
        return int.from_bytes(
            blake2b(text.encode("utf-8", "replace"), digest_size=4).digest(), "big"
        )

    def prompt(self, name: str, **values: str) -> Prompt:
        """Return a prompt of the recipe, filled in, in the form this model takes; `answer` as demonstrators have it."""
        if name == "answer" and self.parts.demonstrator:
            return self.show([values["question"]])[0]
        return self.plain(name, **values)

    def plain(self, name: str, **values: str) -> Prompt:
        """Return a prompt as the recipe's file has it."""
        return self.parts.prompts.render(name, chat=self.parts.backend.describe().chat, **values)

    def show(self, questions: Sequence[str]) -> list[Prompt]:
        """Return the prompt that the demonstrator gives each question, and ask it once for each.

        Raises ComponentError.
        """
        missing = [text for text in dict.fromkeys(questions) if text not in self.shown]
        if missing and (chosen := self.parts.demonstrator):
            lent = LentBackend(self.parts.backend)
            judging = Judging(
                lent, self.plain, lambda claims: [()] * len(claims), self.seed(), self.past
            )
            found = attribute_errors(
                chosen.name, lambda: _shown(chosen.part, tuple(missing), judging)
            )
            self.shown |= zip(missing, found, strict=True)
        return [self.shown[text] for text in questions]

    def judging(self, step: str, name: str, before: Sequence[Named[Verifier]] = ()) -> Judging:
        """Return what a component that works on claims is told."""
        again = partial(_rejudged, self, before)
        return Judging(
            LentBackend(self.parts.backend), self.prompt, again, self.seed(step, name), self.past
        )

    def start(self, step: StepName, attempts: int) -> None:
        """Tell the recorder and the observers that a step begins."""
        self.end_step()
        self.at_work = progress.begin(f"round {self.number}/{self.recipe.rounds} {step}")
        self.parts.backend.step = step
        self.parts.notice(StepStarted(self.number, step, attempts))

    def end_step(self) -> None:
        """Show the step as at work no longer; do nothing where none is."""
        if self.at_work:
            progress.end(self.at_work)
            self.at_work = None

    def count(self, done: float, total: float, unit: str, note: str = "") -> None:
        """Note how far the step at work is."""
        if self.at_work:
            self.at_work.count(done, total, unit, note)

    def advance(self, count: float) -> None:
        """Note how much further the step at work is."""
        if self.at_work:
            self.at_work.advance(count)

    def learnt(self, done: int, of: int, loss: float) -> None:
        """Tell the observers how far a tuner is."""
        batch = BatchLearnt(self.number, int(done), int(of), float(loss))
        self.count(batch.done, batch.of, "batches", f"loss {batch.loss:.3f}")
        self.parts.notice(batch)

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
        turn.count(wanted - max(missing, 0), wanted, "questions")
        if missing <= 0 or len(dry) == len(turn.parts.sources):
            break
        past, lent = turn.past.with_attempts(attempts), LentBackend(turn.parts.backend)
        asking = Asking(
            missing, turn.number, number, turn.seed("ask", number), lent, past, turn.prompt
        )
        attempts += score(turn, [Attempt(q) for q in _draw(turn, asking, dry)], asking)
    surplus = {id(attempt) for attempt in [a for a in attempts if a.live][wanted:]}
    # a later round may ask these
    return [attempt for attempt in attempts if id(attempt) not in surplus]


def _draw(turn: Turn, asking: Asking, dry: set[str]) -> list[Question]:
    """Return new questions of all sources that still have some, by their shares, in turns: the surplus is cut off."""
    ready = [s for s in turn.parts.sources if s.name not in dry]
    total = sum(source.share for source in ready)
    drawn: list[tuple[float, Question]] = []
    for source in ready:
        count = max(1, round(asking.n * source.share / total))
        told = replace(asking, n=count, seed=turn.seed("ask", source.name, asking.turn))
        given = capture("ask", source.name, partial(_listed, source.part, told))
        if isinstance(given, Failed):
            turn.trouble(given.failure)
            given = []
        checked = [
            capture("ask", source.name, partial(validate_record, question, Question))
            for question in given
        ]
        for lost in (one for one in checked if isinstance(one, Failed)):
            turn.trouble(lost.failure)
        good = [one for one in checked if not isinstance(one, Failed)]
        if not good:
            dry.add(source.name)
        drawn += [
            (i / source.share, replace(q, text=encodable(q.text))) for i, q in enumerate(good)
        ]
    return [question for _, question in sorted(drawn, key=lambda one: one[0])]


def _listed(source: QuestionSource, asking: Asking) -> list[Question]:
    return at_most(source.ask(asking), 100 + 10 * asking.n)


def score(turn: Turn, attempts: Sequence[Attempt], asking: Asking) -> list[Attempt]:
    """Score the questions; drop the ones below a scorer's minimum. Later scorers see only what is
    left.

    Dropped is also what an earlier round asked in other words, without meaning to ask it again
    (`Question.variant`).
    """
    scored = list(attempts)
    for scorer in turn.parts.scorers:
        live = [i for i, a in enumerate(scored) if a.live]
        questions = [scored[i].question for i in live]
        results = capture_each(
            "ask",
            scorer.name,
            partial(_scores, scorer.part, asking),
            questions,
            Score,
            turn.trouble,
        )
        for i, result in zip(live, results, strict=True):
            lost = (
                result.failure
                if isinstance(result, Failed)
                else _impossible("ask", scorer.name, result)
            )
            if isinstance(result, Failed) or lost is not None:
                assert lost is not None
                scored[i] = turn.end(scored[i].failed(lost))
                continue
            scored[i] = replace(
                scored[i], scores=(*scored[i].scores, replace(result, scorer=scorer.name))
            )
            if scorer.minimum is not None and not result.value >= scorer.minimum:
                reason = f"{scorer.name}: {result.reason or f'{result.value:.2f} is below {scorer.minimum}'}"
                scored[i] = turn.end(replace(scored[i], decision="dropped", reason=reason))
    return _asked_once(turn, scored)


def _asked_once(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    earlier = {gist(text): text for text in reversed(turn.past.questions)}
    done = list(attempts)
    for i, attempt in enumerate(attempts):
        question = attempt.question
        before = earlier.get(gist(question.text)) if attempt.live and gist(question.text) else None
        # The same text again is meant to replace its outcome; an answer to be judged is a matter of
        # its own.
        if before and before != question.text and not question.variant and not question.answer:
            done[i] = turn.end(
                replace(attempt, decision="dropped", reason=f"asked before: like {before!r}")
            )
    return done


def _scores(
    scorer: Scorer, asking: Asking, questions: Sequence[Question]
) -> Sequence[Score] | Mapping[Question, Score]:
    return scorer.score(questions, asking)


def answer(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Draw the greedy draft, unless the question came with an answer to judge, and the samples that verifiers share."""
    how = turn.recipe.answer
    attempts = _with_prompts(turn, attempts)
    stop = tuple(how.stop)
    greedy = Sampling(max_tokens=how.max_tokens, stop=stop, careful=how.careful)
    drawn = Sampling(how.temperature, top_p=how.top_p, max_tokens=how.max_tokens, stop=stop)
    entropy = "entropies" in turn.parts.backend.describe().capabilities

    def requests(attempt: Attempt) -> list[Request]:
        prompt = turn.prompt("answer", question=attempt.question.text)
        seed = turn.seed("answer", attempt.question.id)
        draft = [] if attempt.draft else [_request(prompt, greedy, entropy=entropy)]
        return [*draft, _request(prompt, drawn, n=how.samples, seed=seed)]

    def keep(attempt: Attempt, found: list[list[Completion]]) -> Attempt:
        *draft, samples = found
        return replace(
            attempt, draft=draft[0][0] if draft else attempt.draft, samples=tuple(samples)
        )

    return _generated(turn, "answer", _given(turn, attempts), requests, keep)


def _shown(
    demonstrator: Demonstrator, questions: tuple[str, ...], judging: Judging
) -> list[Prompt]:
    return [
        _sound_prompt(prompt)
        for prompt in exactly(demonstrator.show(questions, judging), len(questions))
    ]


def _sound_prompt(prompt: object) -> Prompt:
    """Return a prompt of exactly the types that it must have. Raises TypeError."""
    if isinstance(prompt, str):
        return str(prompt)
    if not isinstance(prompt, tuple) or not prompt:
        raise TypeError(f"gave {prompt!r:.60}, which is neither text nor a tuple of Message")
    return tuple(validate_record(message, Message) for message in prompt)


def _with_prompts(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let the demonstrator choose for all questions in one call; without a prompt an attempt fails."""
    if (chosen := turn.parts.demonstrator) is None:
        return list(attempts)
    broken = capture(
        "answer", chosen.name, lambda: turn.show([a.question.text for a in attempts if a.live])
    )
    if not isinstance(broken, Failed):
        return list(attempts)
    return [turn.end(a.failed(broken.failure)) if a.live else a for a in attempts]


def _given(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Read the answers that came with questions, so that they have log-probabilities as if the model had said them."""
    own = [i for i, attempt in enumerate(attempts) if attempt.live and attempt.question.answer]
    texts = [(attempts[i].question.text, attempts[i].question.answer) for i in own]
    done = list(attempts)
    for i, logprobs in zip(own, _read(turn, "answer", texts), strict=True):
        if isinstance(logprobs, Failure):
            done[i] = turn.end(done[i].failed(logprobs))
        else:
            done[i] = replace(
                done[i], draft=Completion(_whole(turn, done[i].question.answer), logprobs=logprobs)
            )
    return done


def _read(
    turn: Turn, step: str, texts: Sequence[tuple[str, str]]
) -> list[tuple[float, ...] | Failure]:
    """Return the log-probabilities of each answer's tokens after its bare question; texts are (question, answer)."""

    def read() -> list[tuple[float, ...] | RequestError]:
        prompts = [turn.prompt("answer", question=question) for question, _ in texts]
        pairs = [
            Continuation(p, _whole(turn, a), is_open(p))
            for p, (_, a) in zip(prompts, texts, strict=True)
        ]
        return turn.parts.backend.loglikelihood(pairs)

    kind = turn.recipe.backend.kind
    found = capture(step, kind, read) if texts else []
    if isinstance(found, Failed):
        return [found.failure] * len(texts)
    return [
        Failure(step, kind, type(f).__name__, str(f)) if isinstance(f, RequestError) else f
        for f in found
    ]


def _whole(turn: Turn, answer: str) -> str:
    """Return an answer as the model writes it: after a space, up to what ends it."""
    stop = turn.recipe.answer.stop
    return f" {without_thought(answer).strip()}{stop[0] if stop else ''}"


def critique(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let the critic say of each draft what may make the model answer better."""
    if (critic := turn.parts.critic) is None:
        return list(attempts)
    live = [i for i, attempt in enumerate(attempts) if attempt.live and not attempt.question.answer]
    turn.start("critique", len(live))
    claims = [_claim(attempts[i]) for i in live]
    part, judging = critic.part, turn.judging("critique", critic.name)
    found = capture_each(
        "critique",
        critic.name,
        lambda c: part.critique(c, judging),
        claims,
        Completion,
        turn.trouble,
    )
    done = list(attempts)
    for i, one in zip(live, found, strict=True):
        if isinstance(one, Failed):
            done[i] = done[i].failed(one.failure, fatal=False)
        elif said := _thought_through(one):
            done[i] = replace(done[i], critique=replace(one, text=said))
    return done


def _thought_through(written: Completion) -> str:
    """Return what a text says after its thought: nothing where the thought has not ended."""
    begun = thought(written.text)
    return (written.text if begun is None else begun.answer or "") if written.text.strip() else ""


def revise(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let the model answer again with the critique before it, and read what it says after the bare question too."""
    if (critic := turn.parts.critic) is None:
        return list(attempts)
    how = turn.recipe.answer
    sampling = Sampling(max_tokens=how.max_tokens, stop=tuple(how.stop))

    def requests(attempt: Attempt) -> list[Request]:
        if attempt.critique is None:
            return []
        noted = attempt.critique.text.strip()
        values = {"question": attempt.question.text, "draft": attempt.answer, "critique": noted}
        return [_request(turn.prompt(critic.part.revise, **values), sampling)]

    def keep(attempt: Attempt, found: list[list[Completion]]) -> Attempt:
        return replace(attempt, revision=found[0][0])

    return _read_back(turn, _generated(turn, "revise", attempts, requests, keep))


def _read_back(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Give each revision its log-probabilities after the bare question: a critique makes anything likely."""
    done, new = (
        list(attempts),
        [i for i, a in enumerate(attempts) if a.live and a.revision and _differs(a)],
    )
    texts = [(attempts[i].question.text, attempts[i].revision.text) for i in new]  # type: ignore[union-attr]
    for i, logprobs in zip(new, _read(turn, "revise", texts), strict=True):
        known = () if isinstance(logprobs, Failure) else logprobs
        revision = replace(done[i].revision, tokens=(), logprobs=known, entropies=None, margin=None)  # type: ignore[type-var]
        done[i] = replace(done[i], revision=revision)
        if isinstance(logprobs, Failure):
            done[i] = done[i].failed(logprobs, fatal=False)
    return done


def _differs(attempt: Attempt) -> bool:
    assert attempt.draft and attempt.revision
    return normalise(attempt.revision.text) != normalise(attempt.draft.text)


def _request(
    prompt: Prompt, sampling: Sampling, *, n: int = 1, seed: int = 0, entropy: bool = False
) -> Request:
    return Request(prompt, sampling, n=n, seed=seed, open_turn=is_open(prompt), entropy=entropy)


def _generated(
    turn: Turn,
    step: StepName,
    attempts: Sequence[Attempt],
    requests: Callable[[Attempt], list[Request]],
    keep: Callable[[Attempt, list[list[Completion]]], Attempt],
) -> list[Attempt]:
    """Send the requests of all live attempts as one batch, and `keep` for each attempt what came of
    its own.

    An attempt without an answer has failed; one that lacks only a critique or a revision goes on
    without.
    """
    live = [i for i, attempt in enumerate(attempts) if attempt.live]
    turn.start(step, len(live))
    batch = [(i, request) for i in live for request in requests(attempts[i])]
    found: list[list[Completion]] = [[] for _ in batch]
    refused: dict[int, Failure] = {}
    kind = turn.recipe.backend.kind
    broken = capture(step, kind, lambda: _collect(turn, step, batch, found, refused))
    lost = Failure(
        step, kind, "IncompleteBatch", "the backend ended before all completions were there"
    )
    if isinstance(broken, Failed):
        lost = broken.failure
    _answer_thoughts(turn, step, batch, found)
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
            refused[batch[position][0]] = Failure(
                step, turn.recipe.backend.kind, type(result).__name__, str(result)
            )
        else:
            found[position].append(result)


def _answer_thoughts(
    turn: Turn, step: StepName, batch: list[tuple[int, Request]], found: list[list[Completion]]
) -> None:
    """Put the answer in the place of each completion that begins with a thought."""
    places = [(p, k) for p, completions in enumerate(found) for k in range(len(completions))]

    def generate(requests: list[Request]) -> list[Completion | None]:
        written: list[list[Completion]] = [[] for _ in requests]
        refused: dict[int, Failure] = {}
        numbered = list(enumerate(requests))
        broken = capture(
            step, turn.recipe.backend.kind, lambda: _collect(turn, step, numbered, written, refused)
        )
        if isinstance(broken, Failed):
            turn.trouble(broken.failure)
        for failure in refused.values():
            turn.trouble(failure)
        return [completions[0] if completions else None for completions in written]

    def seed(request: Request, sample: int) -> int:
        return turn.seed("thought", request.seed, sample)

    drawn = [(batch[p][1], found[p][k]) for p, k in places]
    results = answered(drawn, generate, seed, turn.recipe.answer.thought_tokens)
    for (p, k), completion in zip(places, results, strict=True):
        found[p][k] = completion


def verify(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Let each verifier judge each draft, and each revision that says something else.

    None sees the critique.
    """
    done = list(attempts)
    claims = [(i, claim) for i, a in enumerate(attempts) if a.live for claim in _claims(a)]
    turn.start("verify", sum(a.live for a in attempts))
    verifiers = turn.parts.verifiers
    turn.count(0, len(verifiers) * len(claims), "verdicts")
    found = _judged(turn, verifiers, [claim for _, claim in claims], turn.advance)
    for (i, _), results in zip(claims, found, strict=True):
        for result in results:
            if isinstance(result, Failure):
                done[i] = done[i].failed(result, fatal=False)
            else:
                done[i] = replace(done[i], verdicts=(*done[i].verdicts, result))
    return done


def _judged(
    turn: Turn,
    verifiers: Sequence[Named[Verifier]],
    claims: Sequence[Claim],
    advance: Callable[[int], None] = lambda count: None,
) -> list[tuple[Verdict | Failure, ...]]:
    """Return what each verifier says of each claim. Each is shown what those before it said.

    `advance` is told how many verdicts there are more.
    """
    found = [tuple[Verdict | Failure, ...]() for _ in claims]
    for k, verifier in enumerate(verifiers):
        shown = [replace(c, verdicts=_verdicts(own)) for c, own in zip(claims, found, strict=True)]
        judge = partial(_judge, verifier.part, turn.judging("verify", verifier.name, verifiers[:k]))
        results = capture_each("verify", verifier.name, judge, shown, Verdict, turn.trouble)
        checked = [_sound(verifier.name, c, r) for c, r in zip(claims, results, strict=True)]
        found = [(*own, one) for own, one in zip(found, checked, strict=True)]
        advance(len(claims))
    return found


def _judge(
    verifier: Verifier, judging: Judging, claims: Sequence[Claim]
) -> Sequence[Verdict] | Mapping[Claim, Verdict]:
    return verifier.verify(claims, judging)


def _rejudged(
    turn: Turn, verifiers: Sequence[Named[Verifier]], claims: Sequence[Claim]
) -> list[tuple[Verdict, ...]]:
    own_claims = [validate_record(claim, Claim) for claim in claims]
    return [_verdicts(own) for own in _judged(turn, verifiers, own_claims)]


def _verdicts(found: Iterable[Verdict | Failure]) -> tuple[Verdict, ...]:
    return tuple(one for one in found if isinstance(one, Verdict))


def _sound(name: str, claim: Claim, result: Verdict | Failed) -> Verdict | Failure:
    if isinstance(result, Failed):
        return result.failure
    if failure := _impossible("verify", name, result):
        return failure
    return replace(result, verifier=name, candidate=claim.candidate)


def _impossible(step: StepName, name: str, record: Score | Verdict) -> Failure | None:
    why = impossible(record)
    return Failure(step, name, "ValueError", why) if why else None


def _claim(attempt: Attempt) -> Claim:
    assert attempt.draft is not None
    return Claim(attempt.question, attempt.draft, attempt.samples)


def _claims(attempt: Attempt) -> Iterable[Claim]:
    yield _claim(attempt)
    if attempt.draft and attempt.revision and _differs(attempt):
        # the draft was said to the bare question too: it counts as a sample of what the model says
        # to it
        yield Claim(
            attempt.question, attempt.revision, (*attempt.samples, attempt.draft), "revision"
        )


def decide(turn: Turn, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Turn confidence into belief, declined or undecided.

    The last verifier that can tell has the say.
    """
    turn.start("decide", sum(attempt.live for attempt in attempts))
    chosen = [_chosen(turn, attempt) if attempt.live else attempt for attempt in attempts]
    chosen = contradictions(turn.past.beliefs, chosen)
    how = turn.recipe.decide
    belief = how.threshold([a.confidence for a in chosen if a.live and a.confidence is not None])
    return [turn.end(_decided(a, belief, how.declined)) if a.live else a for a in chosen]


def _chosen(turn: Turn, attempt: Attempt) -> Attempt:
    """Choose between draft and revision; note how sure the verifiers are of the chosen one.

    A revision takes the draft's place only if it is an answer, and the last verifier that could judge both gives it
    more: a critique is pressure, not a signal (Sharma et al. 2023, arXiv 2310.13548; Huang et al. 2023, arXiv
    2310.01798). A text that is no answer has no confidence, whatever the verifiers say of it.
    """
    question = attempt.question.text
    prompt = turn.shown.get(question) or turn.plain("answer", question=question)
    draft, revision = _confidences(attempt, "draft"), _confidences(attempt, "revision")
    last = next((name for name in reversed(draft) if name in revision), None)
    better = last is not None and revision[last] > draft[last]
    if better and attempt.revision and not non_answer(question, attempt.revision.text, prompt):
        attempt, draft = replace(attempt, chosen="revision"), revision
    candidate = attempt.draft if attempt.chosen == "draft" else attempt.revision
    # it thought, and then said nothing
    text = attempt.answer or (candidate.thought if candidate else "")
    if declines(text):
        return replace(attempt, decision="declined", reason="the model declined")
    if why := non_answer(question, text, prompt):
        refused = why in (REFUSAL, BOILERPLATE)
        return replace(
            attempt, decision="declined" if refused else "undecided", reason=f"no answer: {why}"
        )
    return replace(attempt, confidence=next(reversed(draft.values()), None))


def _confidences(attempt: Attempt, candidate: str) -> dict[str, float]:
    return {
        name: given for name, given in attempt.confidences(candidate).items() if given is not None
    }


def _decided(attempt: Attempt, belief: float, declined: float) -> Attempt:
    if attempt.confidence is None:
        broke = [failure.component for failure in attempt.failures if failure.step == "verify"]
        failed = f": {' and '.join(dict.fromkeys(broke))} failed" if broke else ""
        return replace(attempt, decision="undecided", reason=f"no verifier could tell{failed}")
    held, refused = attempt.confidence >= belief, attempt.confidence <= declined
    decision: Decision = "belief" if held else "declined" if refused else "undecided"
    reason = ", ".join(filter(None, (f"confidence {attempt.confidence:.2f}", attempt.reason)))
    if (low := attempt.lowers) and low.confidence is not None and low.confidence >= belief:
        attempt = replace(attempt, lowers=replace(low, decision="belief"))
    return replace(attempt, decision=decision, reason=reason)


def tune(turn: Turn, attempts: Sequence[Attempt]) -> Adapter | None:
    """Train an adapter on what holds and load it; None if there is no tuner, or it is not its round."""
    spec, tuner = turn.recipe.tuner, turn.parts.tuner
    if spec is None or tuner is None or turn.number % spec.every:
        return None
    turn.start("tune", sum(attempt.decision == "belief" for attempt in attempts))
    before = turn.parts.backend.adapter
    folder = turn.parts.folder / ADAPTERS / f"round-{turn.number:03d}"
    lent = TunersBackend(turn.parts.backend)
    made = capture("tune", tuner.name, lambda: _tuned(turn, attempts, folder, lent))
    if isinstance(made, Failed):
        turn.trouble(made.failure)
        made = None
    if made is None and lent.swapped:
        _load_again(turn, before)
    return made


def _load_again(turn: Turn, before: Adapter | None) -> None:
    """Load the adapter that was in effect before a tune that made none: a tuner may have loaded others."""
    backend = turn.parts.backend
    again = capture("tune", backend.name, lambda: backend.load_adapter(before))
    if isinstance(again, Failed):
        turn.trouble(again.failure)


def _tuned(
    turn: Turn, attempts: Sequence[Attempt], folder: Path, backend: TunersBackend
) -> Adapter | None:
    assert turn.parts.tuner is not None
    folder.mkdir(parents=True, exist_ok=True)
    past = turn.past.with_attempts(attempts)
    told = Tuning(
        turn.number,
        tuple(attempts),
        past,
        folder,
        backend,
        turn.prompt,
        turn.seed("tune"),
        turn.learnt,
    )
    made = turn.parts.tuner.part.tune(told)
    if made is None:
        return None
    made = turn.parts.at_home(replace(validate_record(made, Adapter), round=turn.number))
    if why := impossible(made):
        raise ValueError(why)
    try:
        turn.parts.load_adapter(made)
    except Exception:
        # the backend may be left with another, or with none
        turn.parts.load_adapter(turn.past.adapter)
        raise
    return made
