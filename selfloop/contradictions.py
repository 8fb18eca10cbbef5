"""Answers that cannot both be right lower each other, so no belief outlasts its contradiction.

At most one of two contradicting statements is true. If they were independent, of probability p and
q, the first is then true with probability p(1 - q) / (1 - pq): P(first and not second), out of all
that is not "both".
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from selfloop.history import WITHOUT_ANSWER
from selfloop.records import Attempt, Belief, Outcome, Question
from selfloop.text.answers import content, declines, normalise
from selfloop.text.gist import gist

# No verdict counts as more certain: eight samples of eight that agree are not a proof. It also
# keeps 1 - pq away from 0.
MAX_CONFIDENCE = 0.99


def origin(
    question: Question, questions: Mapping[str, Question], through: Sequence[str] = ("reworded",)
) -> str:
    """Return the text of the question that this one is a variant of in the end.

    It follows `variant_of` over any number of `questions` (by their texts), as long as the kind of
    the variant is one of `through`.
    """
    passed = {question.text}
    while question.variant in through:
        if question.variant_of in passed:
            return min(passed)  # a circle of variants: its least text is the same from each of them
        passed.add(question.variant_of)
        question = questions.get(question.variant_of) or Question(question.variant_of, "")
    return question.text


def agree(answer: str, other: str) -> bool:
    """Return whether two answers may be the same ("Athens", "Athens, Greece").

    They are if one of them has all the words of the other.
    """
    words, other_words = _words(answer), _words(other)
    return words <= other_words or other_words <= words


def _words(text: str) -> set[str]:
    """Return the words of an answer, less the "s" at their end: a cat, cats."""
    return {word.removesuffix("s") or word for word in normalise(text).split()}


def contradicts(question: Question, answer: str, belief: Belief) -> bool:
    """Return whether `answer` to `question` cannot be right beside `belief`.

    A question that asks for the same in other words (a rewording, or one of the same gist) must get
    the same answer. A reversed question asks from the answer's side: see `_leads_elsewhere`.
    """
    linked = question.variant if question.variant_of == belief.question.text else ""
    if linked == "reversed":
        return _leads_elsewhere(question, answer, belief) and not declines(answer)
    # An empty gist says nothing, so two questions without words are not the same.
    same = linked == "reworded" or gist(question.text) == gist(belief.question.text) != ()
    return same and not declines(answer) and not agree(answer, belief.answer)


def _leads_elsewhere(reversed_question: Question, answer: str, belief: Belief) -> bool:
    """Return whether the answer to a reversed question names nothing of the belief's question.

    "Capital of Egypt: Cairo", reversed: "Cairo is the capital of which country?". Its answer must
    name something that the belief's question names and the reversed one does not (Egypt). In three
    cases there is nothing to compare: the reversed question does not mention the belief's answer,
    it names everything itself, or the answer only repeats its words.
    """
    asked, believed = _words(reversed_question.text), _words(belief.answer)
    to_be_named = _words(" ".join(content(belief.question.text))) - asked - believed
    new_words = _words(answer) - asked
    comparable = bool(to_be_named and new_words and believed & asked)
    return comparable and not to_be_named & new_words


def contradictions(beliefs: Sequence[Belief], attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts, each with its confidence lowered by the answer that it contradicts.

    That is a belief of `beliefs` or the answer of an earlier one of the attempts; of several the
    most confident. The contradicted answer is lowered as well: an attempt of this round in its
    place, an earlier belief in `Attempt.lowers`, as undecided. Whether either is still believed is
    decided afterwards (`steps/decide.py`). A belief whose question was asked again is left out,
    because the new answer replaces it.
    """
    replaced = {a.question.text for a in attempts if a.decision not in WITHOUT_ANSWER}
    questions = [attempt.question for attempt in attempts]
    questions += [belief.question for belief in beliefs]
    # All questions must be there before the first is added: an origin may lead over later ones.
    answers = _Answers({question.text: question for question in questions})
    for belief in beliefs:
        if belief.question.text not in replaced:
            answers.add(belief)
    results, index_by_question = list(attempts), dict[str, int]()
    for i, attempt in enumerate(attempts):
        if attempt.confidence is None or not attempt.live:
            continue
        new = Belief(attempt.question, attempt.answer, attempt.confidence, 0)
        if rival := answers.contradicted_by(new):
            # both by the confidences that they had before
            new, low = _lowered(new, rival), _lowered(rival, new)
            answers.by_question[low.question.text] = low
            lowered_outcome = None
            why = f"contradicted by {new.question.text!r}: {new.answer}"
            j = index_by_question.get(low.question.text)
            if j is not None:
                # an answer of this round: its attempt is still undecided
                results[j] = replace(results[j], confidence=low.confidence, reason=why)
            else:
                # a belief of an earlier round: the attempt that contradicts it carries its outcome
                lowered_outcome = _undecided(low, why)
            results[i] = replace(
                attempt,
                confidence=new.confidence,
                reason=f"contradicts {low.question.text!r}: {low.answer}",
                lowers=lowered_outcome,
            )
        # added with its lowered confidence, so later attempts are compared with that
        answers.add(new)
        index_by_question[new.question.text] = i
    return results


def _undecided(belief: Belief, reason: str) -> Outcome:
    return Outcome(
        belief.question,
        "undecided",
        belief.answer,
        belief.confidence,
        belief.round,
        belief.adapter,
        reason,
    )


class _Answers:
    """Answers by the texts of their questions, with an index from a subject to its questions.

    A subject is the origin of a question or its gist. The index keeps the search for a
    contradiction linear in the number of answers.
    """

    def __init__(self, questions: Mapping[str, Question]) -> None:
        self._questions = questions
        self.by_question: dict[str, Belief] = {}
        self._texts_by_subject = defaultdict[object, list[str]](list)

    def add(self, belief: Belief) -> None:
        text = belief.question.text
        self.by_question[text] = belief
        for subject in (origin(belief.question, self._questions), gist(text)):
            self._texts_by_subject[subject].append(text)

    def contradicted_by(self, new: Belief) -> Belief | None:
        """Return the most confident answer to another question that `new` contradicts."""
        contradicted: list[Belief] = []
        for text, question in self._comparisons(new.question):
            answer = self.by_question[text]
            # a question does not contradict itself: its new answer replaces the old one
            if text != question.text and contradicts(question, new.answer, answer):
                contradicted.append(answer)
        return max(contradicted, key=lambda belief: belief.confidence, default=None)

    def _comparisons(self, question: Question) -> list[tuple[str, Question]]:
        """Return (the text of an answered question, `question` as a variant of it).

        Origins may lie several variants back, so each pair is linked directly.
        """
        reworded = replace(question, variant="reworded")
        # The origin of a reversed question is itself; as a rewording, it leads back to the question
        # it reverses.
        is_reversed = question.variant == "reversed"
        by_origin = self._texts_by_subject[
            origin(reworded if is_reversed else question, self._questions)
        ]
        linked = question if is_reversed else reworded
        pairs = [(text, replace(linked, variant_of=text)) for text in by_origin]
        return pairs + [(text, question) for text in self._texts_by_subject[gist(question.text)]]


def _lowered(belief: Belief, rival: Belief) -> Belief:
    """Return `belief` with its probability, given that it and `rival` are not both true."""
    p, q = min(belief.confidence, MAX_CONFIDENCE), min(rival.confidence, MAX_CONFIDENCE)
    return replace(belief, confidence=p * (1 - q) / (1 - p * q))
