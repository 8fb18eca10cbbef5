"""The tuner `lora`: what the loop found out goes into an adapter of the model.

lessons.py   what is taught, from what the run holds and what it declined
training.py  the loop: loss at the answers' tokens only, KL to the base, checkpoints
gate.py      whether an adapter is taken
tuner.py     all of the above as a `selfloop.protocols.Tuner`

Only names and signatures are here, so that listing plugins imports neither torch nor peft.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from selfloop_plugins._shared.prompt_files import PROMPTS

from selfloop import Component, Question, data, hookimpl
from selfloop.errors import MissingExtra, RecipeError

if TYPE_CHECKING:
    from .tuner import Lora


def build(
    *,
    declined: Annotated[float, Gt(0), Lt(1)] | None = None,
    match: bool = True,
    keep: Annotated[float, Gt(0), Le(1)] = 0.95,
    rank: Annotated[int, Ge(1), Le(512)] = 16,
    rate: Annotated[float, Gt(0), Le(1)] = 3e-4,
    epochs: Annotated[int, Ge(1)] = 1,
    batch: Annotated[int, Ge(1)] = 16,
    kl: Annotated[float, Ge(0)] = 1.0,
    preference: Annotated[float, Gt(0), Le(100)] | None = None,
    perplexity: Annotated[float, Gt(0)] = 0.02,
    gold: Path | None = None,
    threads: Annotated[int, Ge(1), Le(512)] | None = None,
) -> "Lora":
    """Train a LoRA of `rank` to decline each question as likely as its answer is wrong, and else to
    answer as before.

    What is answered is learnt as the base distributes it behind the recipe's prompt
    (self-distillation), in that prompt and in the bare question alike. `keep` is the share of right
    answers, as the detectors expect them among questions that are not trained on, which must not
    give way to declining. With `declined` only so many of the declined questions are taught as make
    up that share, and with `match` first those like a known one in form. `kl` weighs the divergence
    from the base on text that it wrote itself. With `preference` (DPO's beta) it is not learnt how
    likely declining is, but whether it is preferred to answering. The adapter is taken if, on
    questions that were never trained on, it keeps more answers and declines more than the base
    together, and if the perplexity of the base's own text rises by no more than the share
    `perplexity`. It is refused too if it does worse than the base on the questions of the file
    `gold`, as the source `dataset` reads it, where a wrong answer costs what a right one brings;
    nothing else is done with them.
    """
    if (many := os.environ.get("WORLD_SIZE", "1")) != "1":  # of accelerate and torchrun
        raise RecipeError(
            f"this process is one of {many}, and each would play a run of its own: the loop and "
            "its tuner run in one. "
            f"Launch it by itself, or with: accelerate launch --num_processes 1"
        )
    try:
        from .tuner import Lora
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "tune", "The tuner lora") from error
    return Lora(
        declined=declined,
        match=match,
        keep=keep,
        rank=rank,
        rate=rate,
        epochs=epochs,
        batch=batch,
        kl=kl,
        preference=preference,
        perplexity=perplexity,
        gold=gold_of(gold),
        threads=threads,
    )


def gold_of(path: Path | None) -> list[Question]:
    """Return the gate's questions.

    Raises RecipeError for a file that cannot be read, or has one without answers.
    """
    if path is None:
        return []
    table = data.read(path, "eval")
    for rows in table.left_out:
        if rows.reason == data.WITHOUT_GOLD:
            raise RecipeError(
                f"{path}, {table.unit} {rows.first[0]}: the gate needs answers to all gold "
                "questions, and this has "
                "none; add `answers`"
            )
    return list(table.questions)


def check(*, gold: Path | None = None, **options: Any) -> None:
    """Raise for gold questions that cannot be used, before the model is opened."""
    gold_of(gold)


def readings(*, epochs: float = 1, **options: Any) -> float:
    """Return how many times each lesson is read, for `selfloop plan`."""
    return epochs


@hookimpl
def selfloop_tuners() -> list[Component]:
    """Offer the tuner."""
    paper = "https://arxiv.org/abs/2106.09685"
    doc = "a LoRA on the model's own beliefs, and on what it declined"
    return [
        Component(
            "lora",
            build,
            doc=doc,
            prompts=PROMPTS,
            check=check,
            paper=paper,
            extra="tune",
            estimate=readings,
        )
    ]
