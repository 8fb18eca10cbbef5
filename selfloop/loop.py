"""Read this first: this is the whole program.

A round asks questions, answers them, criticises and revises the answers, lets detectors judge them,
decides which are believed, and now and then tunes the model on its beliefs. `run_rounds` yields
each round as it ends; the caller saves, prints and stops. Kill it anywhere: every text of the model
is stored as it comes (`storage/recorder.py`), and a round that runs again asks for the same and
gets it back.

Then read `steps/` (one file a step), `records.py` (the nouns) and `protocols.py` (the plugins).
"""

from collections.abc import Iterator

from selfloop.config.assembly import Pipeline
from selfloop.config.recipe import Recipe
from selfloop.history import History
from selfloop.records import Round
from selfloop.steps.answer import answer
from selfloop.steps.ask import ask
from selfloop.steps.context import RoundContext
from selfloop.steps.critique import critique, revise
from selfloop.steps.decide import decide
from selfloop.steps.tune import tune
from selfloop.steps.verify import verify


def run_rounds(recipe: Recipe, parts: Pipeline, history: History) -> Iterator[Round]:
    """Yield the rounds that `recipe` wants and `history` does not have yet, each as it ends."""
    while history.rounds < recipe.rounds:
        with RoundContext(history.rounds + 1, recipe, parts, history) as context:
            attempts = ask(context)
            attempts = answer(context, attempts)
            attempts = critique(context, attempts)
            attempts = revise(context, attempts)
            attempts = verify(context, attempts)
            attempts = decide(context, attempts)
            adapter = tune(context, attempts)
        ended = Round(
            context.number, tuple(attempts), adapter, context.all_failures(), context.agreement
        )
        yield ended
        history = history.after(ended)
