"""`gate.json`: the figures of a tuner's gate, written beside the adapter for later displays.

The only reader and the only writer of the file. Its content:

    {"taught": 61, "held out": 19,                       numbers of questions
     "epochs": [{"epoch": 1, "loss": 5.8, "kl": 0.0, "held": 5.9, "dial": {KIND: -0.8}}, ...],
     "gate": {"base": {FIGURES}, "tuned": {FIGURES}, "bounds": {...}, "refusal": ""}}

with FIGURES = {"kept": 0.9, "declined": 0.1, "refused": 0.0, "perplexity": 12.0,
"gold": [right, wrong] or null, "turn": null or the figures in the chat form}. The dial is the bias
towards declining of each kind of decision, such as "before the answer".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfloop.errors import ModelError
from selfloop.storage import atomic
from selfloop.storage.plain_json import read_object
from selfloop.storage.run_folder import gate_file


@dataclass(frozen=True, slots=True)
class GateReport:
    """The figures of the base and of the tuned model by name.

    "gold right" and "gold wrong" are among them where there were gold questions, "turn kept",
    "turn ended" and so on where the model was measured in its own chat form.

    refusal          why the adapter was refused, or empty
    taught           how many questions were taught; None in a file that does not say
    held_out         how many questions were held out; half of them are the gate's
    held_out_losses  the mean loss on held-out questions after each epoch
    """

    base: dict[str, float]
    tuned: dict[str, float]
    refusal: str
    taught: int | None = None
    held_out: int = 0
    held_out_losses: tuple[float, ...] = ()


def write_gate(
    folder: Path,
    *,
    taught: int,
    held_out: int,
    epochs: Sequence[Mapping[str, Any]],
    gate: Mapping[str, Any],
) -> None:
    """Write the report of the adapter in `folder`, whole. Raises OSError, or DiskFullError."""
    report = {"taught": taught, "held out": held_out, "epochs": list(epochs), "gate": gate}
    atomic.write_text(gate_file(folder), json.dumps(report, indent=1))


def read_gate(folder: Path) -> GateReport | None:
    """Return the report of the adapter in `folder`; None where no gate wrote one.

    Raises ModelError for a file that cannot be read, or that is damaged.
    """
    path = gate_file(folder)
    if not path.is_file():
        return None
    try:
        report = read_object(path)
        gate = report["gate"]
        return GateReport(
            base=_figures(gate["base"]),
            tuned=_figures(gate["tuned"]),
            refusal=str(gate["refusal"]),
            taught=report.get("taught"),
            held_out=int(report.get("held out", 0)),
            held_out_losses=tuple(float(epoch["held"]) for epoch in report.get("epochs", ())),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}. Put it back as the tuner wrote it, or remove it."
        ) from error


def _figures(measured: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers by name, those of gold questions and turns under names of their own."""
    gold = zip(("gold right", "gold wrong"), measured.get("gold") or (), strict=False)
    turn = {f"turn {name}": value for name, value in (measured.get("turn") or {}).items()}
    return {
        name: float(value)
        for name, value in (*measured.items(), *gold, *turn.items())
        if isinstance(value, int | float)
    }
