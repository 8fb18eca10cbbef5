"""The tuner `lora`: it trains a LoRA adapter on a run's beliefs and its declined questions.

In reading order:

settings.py           the options, declared once
training_examples.py  which questions are taught, and which are held out
tokenized.py          those examples as tokens in the recipe's prompts, and batches of them
conversation.py       those examples as turns of a chat
readout.py            how likely the base knows, by its states before the answer
turn_decisions.py     where a chat model decides whether to decline, each with that chance
requests.py           requests that ask for no fact, to which the replies are to stay
other_answers.py      other answers to the questions, for the mark behind an answer
forward.py            the model's hidden states at chosen positions
losses.py             the terms of the loss, each with its formula
measures.py           figures of a model without gradients: held-out loss, perplexity, declining
checkpoint.py         the state from which an interrupted training continues
processes.py          the processes that train together, one alone by default
training.py           the loop over epochs and batches
last_block.py         what a model reads and computes around its last block
rank_one.py           when to decline in a chat, solved after the training
turn_figures.py       the gate's figures in a chat
gate.py               whether an adapter is accepted
launch.py             how processes that torchrun started meet for a training
tuner.py              all of the above in one `tune`
worker.py             the other processes of a launch

Only names and signatures are here, so that listing plugins imports neither torch nor peft.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfloop_plugins._shared.prompt_files import PROMPTS

from selfloop import Component, Question, data, hookimpl
from selfloop.errors import MissingExtraError, RecipeError

from .settings import LoraSettings

if TYPE_CHECKING:
    from selfloop import TuneContext
    from selfloop.records import Adapter


@dataclass(frozen=True, kw_only=True)
class Lora(LoraSettings):
    """Train a LoRA adapter that makes the model decline answers that are likely wrong.

    Each question is taught with the probability, as the detectors estimate it, that its answer is
    correct: so likely the model shall answer it, and else decline. The answer itself is learnt from
    the base model's own distribution behind the recipe's prompt (self-distillation), in that prompt
    and in the bare question, so that nothing but declining changes. A chat model also learns it in
    its own form: the question in a user's turn, answered or declined in natural words, and ended.
    There the probability of declining in place of a reply comes from the base's own states: those
    of a question predict it, by a regression on the other questions. It is not learnt by gradients
    but solved, as an edit of rank one.
    With `chat: false` it is taught and judged in the loop's form alone, and fit for nothing else.

    `decide` says where the model declines: `before` an answer, in its place; `after` one, by the
    mark "(I don't know)" behind it, so that the model decides when it knows what it has answered;
    or in `both` places, which needs a `rank` of 2. A chat model that is taught its own form decides
    so there, and in the loop's prompts always before.

    `min_kept` is the share of correct answers that the tuned model must still give, on questions
    that are not trained on. A `price` takes its place: declining is then set so that answers above
    that chance of being correct are given, which pays off where a wrong answer costs price /
    (1 - price) right ones. `decline_share` limits the declined questions to this share of all that
    are taught; with `match_form`, those that are like a known question in form come first. `kl`
    weighs the divergence from the base on text that the base wrote. With
    `preference` (DPO's beta) the model learns whether to prefer declining, not how likely it is.

    The adapter is accepted if it keeps more answers and declines more wrong ones than the base,
    both together, on questions that were never trained on. It must decline at least the share
    `min_declined` of the wrong ones, and the perplexity of the base's own text may rise by at most
    the share `perplexity`. For a chat model the same holds in its own form. There it must also end
    at least the share `min_ended` of its turns, or as many as the base. Of requests that ask for no
    fact, it may refuse at most the share `max_refused` more than the base does. With a file of
    `gold` questions, read as by the source `dataset`, it must also do no worse than the base on
    these; a wrong answer costs as much as a correct one earns. Gold questions are used for nothing
    else.
    """

    def __post_init__(self) -> None:
        try:
            # a missing package is reported before a model loads
            from . import launch, tuner  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtraError(str(error.name), "tune", "The tuner lora") from error
        _refuse_narrow(self.decide, self.rank)
        launch.refuse_other_process()
        _ = self.gold_questions  # the file is read before a model loads, and only once

    @cached_property
    def gold_questions(self) -> tuple[Question, ...]:
        """Return the questions of the file `gold`, read once. Raises RecipeError."""
        return read_gold(self.gold)

    def tune(self, context: "TuneContext") -> "Adapter":
        """Return a new adapter, trained on all that the run has found out so far.

        Raises ModelError, with the reason, where there is too little to learn from, or where the
        gate refuses the adapter.
        """
        from .tuner import tune

        return tune(context, self, self.gold_questions)


def read_gold(path: Path | None) -> tuple[Question, ...]:
    """Return the gold questions of the gate, none without a file.

    Raises RecipeError for a file that cannot be read, or that has a question without answers.
    """
    if path is None:
        return ()
    table = data.read(path, "eval")
    for rows in table.left_out:
        if rows.reason == data.WITHOUT_GOLD:
            raise RecipeError(
                f"{path}, {table.unit} {rows.first[0]}: the gate needs answers to all gold "
                "questions, and this has none; add `answers`"
            )
    return table.questions


def check(
    *, gold: Path | None = None, decide: str = "before", rank: int = 16, **options: Any
) -> None:
    """Raise RecipeError for options that do not fit each other, and for gold questions that cannot
    be used, before the model is opened."""
    _refuse_narrow(decide, rank)
    read_gold(gold)


def _refuse_narrow(decide: str, rank: int) -> None:
    if decide == "both" and rank < 2:
        raise RecipeError(
            "with `decide: both` each place takes one of the adapter's ranks: give the tuner a "
            "rank of 2 or more"
        )


def readings(*, epochs: float = 1, **options: Any) -> float:
    """Return how many times each training example is read, for `selfloop plan`."""
    return epochs


@hookimpl
def selfloop_tuners() -> list[Component]:
    """Offer the tuner."""
    paper = "https://arxiv.org/abs/2106.09685"
    doc = "a LoRA on the model's own beliefs and declined questions"
    return [
        Component(
            "lora",
            Lora,
            doc=doc,
            prompts=PROMPTS,
            check=check,
            paper=paper,
            extra="tune",
            estimate=readings,
        )
    ]
