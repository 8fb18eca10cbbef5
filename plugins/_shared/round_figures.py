"""The figures of each round of a run: of its records, and of the gates of its adapters."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from selfloop import Round
from selfloop.errors import ModelError
from selfloop.evaluation.round_figures import RoundFigures, label_entropy
from selfloop.storage.run_folder import RunFolder

from .gate_report import read_gate


def round_figures(folder: Path, rounds: Sequence[Round]) -> list[RoundFigures]:
    """Return the figures of rounds of the run in `folder`.

    A gate's report that is damaged counts as none.
    """
    figures: list[RoundFigures] = []
    for ended in rounds:
        gate = None
        with suppress(ModelError):
            gate = read_gate(RunFolder(folder).adapter(ended.number))
        tuned = gate.tuned if gate else {}
        of_round = RoundFigures(
            ended.number,
            label_entropy(ended),
            ended.agreement,
            kept=tuned.get("kept"),
            declined=tuned.get("declined"),
        )
        figures.append(of_round)
    return figures
