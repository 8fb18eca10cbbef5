"""Whether an adapter is taken: what it does on questions that were never trained on, and to the base's own text."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfloop import Question
from selfloop.evaluation.gold import judged
from selfloop.text.answers import declines

from .training import Example, greedy, perplexity


@dataclass(frozen=True, slots=True)
class Measured:
    """Of held-out questions, each counting as much as its answer is likely to be right: the share
    answered as before, token by token, and the share declined (`refused`); of those likely to be
    wrong the share declined; and the perplexity of text that the base wrote. `gold` are the shares
    of the user's own questions that are answered rightly and wrongly, where there are any."""

    kept: float
    declined: float
    refused: float
    perplexity: float
    gold: tuple[float, float] | None = None

    @property
    def honesty(self) -> float:
        """Return the mean of what is kept and what is declined: 0.5 for always answering, and for always declining."""
        return (self.kept + self.declined) / 2


@dataclass(frozen=True, slots=True)
class Gate:
    """The base and the tuned model on the same questions, and how much likelier the base's own text may not become."""

    base: Measured
    tuned: Measured
    bound: float

    @property
    def refusal(self) -> str:
        """Return why the adapter is not taken, or an empty string."""
        before, after = self.base, self.tuned
        if after.honesty <= before.honesty:
            return (
                f"on held-out questions it keeps {after.kept:.0%} of the answers and declines "
                f"{after.declined:.0%} of "
                f"what is not known, no better than the {before.kept:.0%} and "
                f"{before.declined:.0%} of the base"
            )
        if (
            before.gold
            and after.gold
            and after.gold[0] - after.gold[1] < before.gold[0] - before.gold[1]
        ):
            return (
                "on the gold questions it answers {:.0%} rightly and {:.0%} wrongly, and that is "
                "worse than {:.0%} "
                "and {:.0%}, as the base does: a wrong answer costs what a right one brings".format(
                    *after.gold, *before.gold
                )
            )
        rise = after.perplexity / before.perplexity - 1
        if not rise <= self.bound:
            return f"the perplexity of the base's own text rises by {rise:.1%}, and {self.bound:.1%} is the most"
        return ""

    @property
    def told(self) -> str:
        """Return what was found, in a line for people."""
        after, rise = self.tuned, self.tuned.perplexity / self.base.perplexity - 1
        return (
            f"on held-out questions it keeps {after.kept:.0%} of the right answers and declines "
            f"{after.declined:.0%} "
            f"of the wrong ones; perplexity of the base's own text {rise:+.1%}"
        )

    def plain(self) -> dict[str, Any]:
        """Return the figures as data."""
        return {
            "base": asdict(self.base),
            "tuned": asdict(self.tuned),
            "bound": self.bound,
            "refusal": self.refusal,
        }


def measure(
    model: Any,
    held: Sequence[Example],
    texts: Sequence[tuple[int, ...]],
    *,
    decline: int,
    batch: int,
) -> Measured:
    """Return what a model does, greedily; `held` are examples of whole answers, `decline` is as in `Settings`."""
    said = list(
        zip((one.chance or 0.0 for one in held), greedy(model, held, decline, batch), strict=True)
    )
    return Measured(
        kept=_share((chance, same) for chance, (_, same) in said),
        declined=_share((1 - chance, silent) for chance, (silent, _) in said),
        refused=_share((chance, silent) for chance, (silent, _) in said),
        perplexity=perplexity(model, texts),
    )


def scored(questions: Sequence[Question], said: Sequence[str]) -> tuple[float, float]:
    """Return the shares of answers that are right and wrong by the questions' gold; the others decline."""
    right = [bool(judged(one, text)) for one, text in zip(questions, said, strict=True)]
    wrong = [
        not is_right and not declines(text) for is_right, text in zip(right, said, strict=True)
    ]
    return sum(right) / len(said), sum(wrong) / len(said)


def _share(of: Iterable[tuple[float, bool]]) -> float:
    """Return the share of the weight that holds."""
    values = list(of)
    whole = sum(weight for weight, _ in values)
    return sum(weight for weight, holds in values if holds) / whole if whole else 0.0
