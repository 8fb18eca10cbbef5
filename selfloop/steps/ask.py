"""The step ask: questions of the sources, as many as wanted that pass the scorers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from selfloop.config.assembly import NamedComponent
from selfloop.guard import (
    Failed,
    at_most,
    capture,
    capture_each,
    impossible_failure,
    validate_record,
)
from selfloop.protocols import AskContext, QuestionSource, Scorer
from selfloop.records import Attempt, Question, Score
from selfloop.steps.context import RoundContext
from selfloop.text.display import encodable
from selfloop.text.gist import gist

# A source may give more questions than it is asked for, but not without end.
SPARE_QUESTIONS = 100
SPARE_FACTOR = 10


def ask(context: RoundContext) -> list[Attempt]:
    """Ask the sources, at most `ask.max_turns` times, until enough questions pass the scorers.

    The questions that did not pass are returned too, as `dropped`.
    """
    wanted, sources = context.recipe.ask.questions, context.parts.sources
    attempts: list[Attempt] = []
    exhausted: set[str] = set()
    context.start_step("ask", wanted)
    for turn in range(context.recipe.ask.max_turns):
        missing = wanted - sum(attempt.live for attempt in attempts)
        context.set_progress(wanted - max(missing, 0), wanted, "questions")
        # enough questions, or no source that has more
        if missing <= 0 or len(exhausted) == len(sources):
            break
        ask_context = AskContext(
            missing,
            context.number,
            turn,
            context.seed("ask", turn),
            context.lent(context.recipe.ask.with_),
            # this round's questions are history too: sources must not repeat them
            context.history.with_attempts(attempts),
            context.prompt,
        )
        drawn = _draw(context, ask_context, exhausted)
        attempts += score(context, [Attempt(question) for question in drawn], ask_context)
    return _without_surplus(attempts, wanted)


def _without_surplus(attempts: Sequence[Attempt], wanted: int) -> list[Attempt]:
    """Return the attempts less the live ones beyond `wanted`, which a later round may ask."""
    kept: list[Attempt] = []
    live = 0
    for attempt in attempts:
        live += attempt.live
        if not attempt.live or live <= wanted:
            kept.append(attempt)
    return kept


def _draw(context: RoundContext, ask_context: AskContext, exhausted: set[str]) -> list[Question]:
    """Return new questions of all sources that are not exhausted, interleaved by their shares.

    A source that gives none is added to `exhausted`.
    """
    sources = [source for source in context.parts.sources if source.name not in exhausted]
    total = sum(source.weight for source in sources)
    drawn: list[tuple[float, list[Question]]] = []
    for source in sources:
        # at least one, or a small weight would never be asked
        count = max(1, round(ask_context.n * source.weight / total))
        seed = context.seed("ask", source.name, ask_context.turn)
        questions = _ask_source(context, source, replace(ask_context, n=count, seed=seed))
        if not questions:
            exhausted.add(source.name)
        drawn.append((source.weight, questions))
    return _interleave_by_share(drawn)


def _interleave_by_share(drawn: Sequence[tuple[float, list[Question]]]) -> list[Question]:
    """Return the questions of all sources in one list; `drawn` are pairs (weight, questions).

    This is stride scheduling: question number i of a source with weight s stands at i / s, and the
    list goes by these positions. So every beginning of it, and the surplus that is cut off its end,
    holds the sources about in proportion to their shares. Of equal positions the first source's
    comes first, for the sort is stable.
    """
    placed: list[tuple[float, Question]] = []
    for weight, questions in drawn:
        placed += [(i / weight, question) for i, question in enumerate(questions)]
    placed.sort(key=lambda pair: pair[0])
    return [question for _, question in placed]


def _ask_source(
    context: RoundContext, source: NamedComponent[QuestionSource], ask_context: AskContext
) -> list[Question]:
    """Return the valid questions of one source. Its faults are noted."""
    results = capture("ask", source.name, lambda: _list_questions(source.part, ask_context))
    if isinstance(results, Failed):
        context.note_failure(results.failure)
        return []
    questions: list[Question] = []
    for result in results:
        question = capture("ask", source.name, partial(validate_record, result, Question))
        if isinstance(question, Failed):
            context.note_failure(question.failure)
        else:
            # lone surrogates cannot be stored as UTF-8
            questions.append(replace(question, text=encodable(question.text)))
    return questions


def _list_questions(source: QuestionSource, ask_context: AskContext) -> list[object]:
    return at_most(source.ask(ask_context), SPARE_QUESTIONS + SPARE_FACTOR * ask_context.n)


def score(
    context: RoundContext, attempts: Sequence[Attempt], ask_context: AskContext
) -> list[Attempt]:
    """Score the questions, and drop those below a scorer's minimum.

    Later scorers see only the questions that are left. Questions that an earlier round asked in
    other words are dropped as well, unless they are marked as variants (`Question.variant`).
    """
    scored = list(attempts)
    for scorer in context.parts.scorers:
        live = [i for i, attempt in enumerate(scored) if attempt.live]
        questions = [scored[i].question for i in live]
        call = partial(_call_scorer, scorer.part, ask_context)
        results = capture_each("ask", scorer.name, call, questions, Score, context.note_failure)
        for i, result in zip(live, results, strict=True):
            scored[i] = _with_score(context, scorer, scored[i], result)
    return _drop_repeated(context, scored)


def _call_scorer(
    scorer: Scorer, ask_context: AskContext, questions: Sequence[Question]
) -> Sequence[Score] | Mapping[Question, Score]:
    return scorer.score(questions, ask_context)


def _with_score(
    context: RoundContext, scorer: NamedComponent[Scorer], attempt: Attempt, result: Score | Failed
) -> Attempt:
    """Return the attempt with one more score, or ended: failed, or dropped for the score."""
    if isinstance(result, Failed):
        return context.end_attempt(attempt.failed(result.failure))
    if failure := impossible_failure("ask", scorer.name, result):
        return context.end_attempt(attempt.failed(failure))
    attempt = replace(attempt, scores=(*attempt.scores, replace(result, scorer=scorer.name)))
    # Without a minimum a score is only recorded.
    if scorer.min_score is None or result.value >= scorer.min_score:
        return attempt
    why = result.reason or f"{result.value:.2f} is below {scorer.min_score}"
    dropped = replace(attempt, decision="dropped", reason=f"{scorer.name}: {why}")
    return context.end_attempt(dropped)


def _drop_repeated(context: RoundContext, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Drop the questions that ask for the same as an earlier one in other words."""
    # reversed, so that of several earlier questions the first stays
    earlier = {gist(text): text for text in reversed(context.history.questions)}
    results = list(attempts)
    for i, attempt in enumerate(attempts):
        question = attempt.question
        # The same text again is meant to replace its outcome, and a variant or a question that
        # comes with its answer is asked on purpose.
        if not attempt.live or question.variant or question.answer:
            continue
        subject = gist(question.text)
        before = earlier.get(subject) if subject else None
        if before and before != question.text:
            reason = f"asked before: like {before!r}"
            results[i] = context.end_attempt(replace(attempt, decision="dropped", reason=reason))
    return results
