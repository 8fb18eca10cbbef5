"""The report that a tuner's gate leaves beside an adapter: figures, and why it was refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfloop.errors import ModelError
from selfloop.storage.plain_json import read_object
from selfloop.storage.run_folder import gate_file


@dataclass(frozen=True, slots=True)
class GateReport:
    """Figures by name, of the base model and with the adapter.

    `refusal` says why the adapter was not taken; it is empty if it was.
    """

    base: dict[str, float]
    tuned: dict[str, float]
    refusal: str


def read_gate_report(folder: Path) -> GateReport | None:
    """Return the gate's report on the adapter in `folder`; None if there is none.

    Raises ModelError for a report that cannot be read.
    """
    path = gate_file(folder)
    if not path.is_file():
        return None
    try:
        gate = read_object(path)["gate"]
        return GateReport(_figures(gate["base"]), _figures(gate["tuned"]), str(gate["refusal"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}. Put it back as the tuner wrote it, or remove it."
        ) from error


def _figures(measured: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of one side; `gold` is a pair, of right and of wrong answers."""
    gold = zip(("gold right", "gold wrong"), measured.get("gold") or (), strict=False)
    figures = {}
    for name, value in (*measured.items(), *gold):
        if isinstance(value, int | float):
            figures[name] = float(value)
    return figures
