"""The tuner `lora`: what the loop found out goes into an adapter of the model.

lessons.py   what is taught, from what the run holds and what it declined
training.py  the loop: loss at the answers' tokens only, KL to the base, checkpoints
gate.py      whether an adapter is taken
tuner.py     all of the above as a `selfloop.protocols.Tuner`

Only names and signatures are here, so that listing plugins imports neither torch nor peft.
"""

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le, Lt

from selfloop import Component, hookimpl
from selfloop.errors import MissingExtra

from ..evidence import PROMPTS

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
    perplexity: Annotated[float, Gt(0)] = 0.02,
    threads: Annotated[int, Ge(1), Le(512)] | None = None,
) -> "Lora":
    """Train a LoRA of `rank` on what was answered: each answer as likely as it is true, and declining as likely as not.

    An answer that is likelier wrong is not taught; the base keeps for it what it had. Each question is taught behind
    the recipe's prompt and bare. `keep` is the share of right answers, as the detectors expect them among questions
    that are not trained on, which must not give way to declining. With `declined` only so many of the declined
    questions are taught as make up that share, and with `match` first those like a known one in form. `kl` weighs the
    divergence from the base on text that it wrote itself. The adapter is taken if, on questions that were never trained
    on, it keeps more answers and declines more than the base together, and if the perplexity of the base's own text
    rises by no more than the share `perplexity`.
    """
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
        perplexity=perplexity,
        threads=threads,
    )


@hookimpl
def selfloop_tuners() -> list[Component]:
    """Offer the tuner."""
    doc = "a LoRA on the model's own beliefs, and on what it declined"
    return [Component("lora", build, doc=doc, prompts=PROMPTS, paper="https://arxiv.org/abs/2106.09685")]
