"""Read this first: this is the whole program.

A round asks questions, answers them, criticises and revises the answers, lets verifiers judge them,
decides what is believed, and now and then tunes the model on what holds. `play` yields each round
as it ends; the caller saves, prints and stops. Kill it anywhere: what the model said is stored as
it comes (`recorder.py`), and a round that runs again asks for the same and gets it back.

Then read `steps.py` (each step), `records.py` (the nouns) and `protocols.py` (what plugins do).
"""

from collections.abc import Iterator

from selfloop import steps
from selfloop.config.assembly import Parts
from selfloop.config.recipe import Recipe
from selfloop.history import Past
from selfloop.records import Round


def play(recipe: Recipe, parts: Parts, past: Past) -> Iterator[Round]:
    """Yield the rounds that `recipe` wants and `past` does not have yet, each as it ends."""
    while past.rounds < recipe.rounds:
        with steps.Turn(past.rounds + 1, recipe, parts, past) as turn:
            attempts = steps.ask(turn)
            attempts = steps.answer(turn, attempts)
            attempts = steps.critique(turn, attempts)
            attempts = steps.revise(turn, attempts)
            attempts = steps.verify(turn, attempts)
            attempts = steps.decide(turn, attempts)
            adapter = steps.tune(turn, attempts)
        ended = Round(turn.number, tuple(attempts), adapter, turn.all_failures())
        yield ended
        past = past.after(ended)
