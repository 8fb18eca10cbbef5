"""What a tuner's gate measured, as it left it beside the adapter: for whoever shows it later."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfloop.errors import ModelError
from selfloop.storage.plain_json import read_object
from selfloop.storage.run_folder import gate_file


@dataclass(frozen=True, slots=True)
class Gated:
    """Figures by name, of the base and with the adapter; `refusal` is why it was not taken, or empty."""

    base: dict[str, float]
    tuned: dict[str, float]
    refusal: str


def gated(folder: Path) -> Gated | None:
    """Return what the gate measured of the adapter in `folder`; None if no gate did.

    Raises ModelError.
    """
    path = gate_file(folder)
    if not path.is_file():
        return None
    try:
        said = read_object(path)["gate"]
        return Gated(_figures(said["base"]), _figures(said["tuned"]), str(said["refusal"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}. Put it back as the tuner wrote it, or remove it."
        ) from error


def _figures(measured: dict[str, Any]) -> dict[str, float]:
    gold = zip(("gold right", "gold wrong"), measured.get("gold") or (), strict=False)
    return {
        name: float(value)
        for name, value in (*measured.items(), *gold)
        if isinstance(value, int | float)
    }
