"""The options of the tuner `lora`, declared once: names, types, bounds and defaults.

A recipe's options are checked against the signature of `LoraSettings`, and every module of this
folder reads the values from one instance of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

# where the tuned model declines: in place of an answer, by a mark behind it, or in both places
Decide = Literal["before", "after", "both"]


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The options as the recipe gives them; `selfloop_plugins.tuners.lora.Lora` explains each."""

    # which examples are taught
    decline_share: Annotated[float, Gt(0), Lt(1)] | None = None
    match_form: bool = True
    chat: bool = True
    # where and how often the tuned model declines
    decide: Decide = "before"
    min_kept: Annotated[float, Gt(0), Le(1)] = 0.9
    price: Annotated[float, Gt(0), Lt(1)] | None = None
    # the adapter, the optimizer and the loss
    rank: Annotated[int, Ge(1), Le(512)] = 16
    rate: Annotated[float, Gt(0), Le(1)] = 3e-4
    epochs: Annotated[int, Ge(1)] = 1
    batch: Annotated[int, Ge(1)] = 16
    kl: Annotated[float, Ge(0)] = 1.0
    preference: Annotated[float, Gt(0), Le(100)] | None = None
    # the gate
    perplexity: Annotated[float, Gt(0)] = 0.02
    min_declined: Annotated[float, Ge(0), Le(1)] = 0.1
    min_ended: Annotated[float, Ge(0), Le(1)] = 0.98
    max_refused: Annotated[float, Ge(0), Le(1)] = 0.05
    gold: Path | None = None
    # the machine
    threads: Annotated[int, Ge(1), Le(512)] | None = None

    @property
    def kept_by_each(self) -> float:
        """Return the share of right answers that each decision is to keep: where an answer must
        pass two of them, each may lose half of what may be lost."""
        decisions = 2 if self.decide == "both" else 1
        return 1 - (1 - self.min_kept) / decisions
