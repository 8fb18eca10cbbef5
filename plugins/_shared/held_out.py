"""Which questions of a run are held out from training, and how likely their answers are correct.

The tuner trains on the others and has its gate ask these. `selfloop export` asks them again in the
file that it has written.
"""

from selfloop_plugins._shared.echoes import echoes

from selfloop import History, Outcome, Question
from selfloop.history import WITHOUT_ANSWER
from selfloop.text.answers import declines

# one question in so many is held out: a larger period leaves the gate too few questions
HELD_OUT_PERIOD = 5


def telling_outcomes(history: History) -> list[Outcome]:
    """Return the last outcome of every question that shows whether the model knows the answer.

    Left out are answers that only repeat words of the question, and texts that are not an answer
    (`selfloop.text.nonanswers`), unless they decline.
    """
    last_outcomes = {
        outcome.question.text: outcome
        for outcome in history.outcomes
        if outcome.decision not in WITHOUT_ANSWER
    }
    return [outcome for outcome in last_outcomes.values() if _shows_knowledge(outcome)]


def is_held_out(question: Question) -> bool:
    """Return whether a question is never trained on, in any round."""
    # the id is a hash of the text: a question stays on its side in all rounds
    return int(question.id, 16) % HELD_OUT_PERIOD == 0


def p_correct(outcome: Outcome) -> float:
    """Return how likely the answer is correct; 0 where the model itself declined."""
    return 0.0 if declines(outcome.answer) else outcome.confidence or 0.0


def _shows_knowledge(outcome: Outcome) -> bool:
    """Return whether an answer shows if the model knows: it answers or declines, and is no echo."""
    # its patterns take a while to compile, which --help must not pay
    from selfloop.text.nonanswers import non_answer

    question, answer = outcome.question.text, outcome.answer
    if echoes(question, answer):
        return False
    return declines(answer) or non_answer(question, answer) is None
