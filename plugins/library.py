"""The functions of the library that built-in plugins implement: see `selfloop.api.builtin`.

Each imports its plugin when it is called, for comparing needs the report's modules, and exporting
numpy or torch.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from selfloop.api.builtin import Form, RunComparison
from selfloop.errors import MissingExtraError
from selfloop.evaluation.round_figures import RoundFigures
from selfloop.records import Decision, Round


def compare(folders: Sequence[Path]) -> RunComparison:
    """Return the comparison of the runs in these folders. Raises StoreError."""
    from selfloop_plugins.report import comparison
    from selfloop_plugins.report.run_summary import read_summary

    compared = comparison.compare_runs([read_summary(folder) for folder in folders])
    return RunComparison(compared.names, dict(compared.rows), compared.shared)


def export(
    folder: Path,
    to: str,
    out: Path | None,
    *,
    weights: str | None,
    round: int | None,
    force: bool,
    questions: int | None,
) -> tuple[Path, int, dict[str, Any]]:
    """Write the tuned model of a run; return its path, the round of its adapter, and its figures.

    Raises SelfloopError.
    """
    from selfloop_plugins.export import MAX_QUESTIONS
    from selfloop_plugins.export.targets import write_export

    written = write_export(
        folder,
        to,
        out,
        kind=weights,
        number=round,
        force=force,
        questions=MAX_QUESTIONS if questions is None else questions,
    )
    return written.path, written.adapter.round, written.check.plain()


def join_launch(rank: int, size: int) -> int | None:
    """Join the processes that a launcher started together, as that of number `rank`.

    Return None in the first one, which plays the run; in the others the exit code, after their
    share of its trainings. Raises SelfloopError.
    """
    # If the first process is killed, the others' torch would print pages about its store.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        from selfloop_plugins.tuners.lora import worker
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tune", "Training in several processes") from error
    return worker.join(rank, size)


def dataset(
    folder: Path, form: Form, *, only: Collection[Decision], chat: bool
) -> list[dict[str, Any]]:
    """Return the results of a run as rows of a data set. Raises SelfloopError."""
    from selfloop_plugins.export.dataset import rows

    return rows(folder, form, only=only, chat=chat)


def round_figures(folder: Path, rounds: Sequence[Round]) -> list[RoundFigures]:
    """Return the figures of rounds of the run in `folder`."""
    from selfloop_plugins._shared import round_figures

    return round_figures.round_figures(folder, rounds)
