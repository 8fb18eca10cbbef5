"""The files of a run by name. The names stand here and nowhere else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DATABASE = "run.sqlite"
RECIPE = "recipe.yaml"
EVENTS = "events.jsonl"
REPORT = "report.html"
ADAPTERS = "adapters"
GATE = "gate.json"
_ADAPTER = re.compile(r"round-(\d{3,})")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run, and the path of every file that a run may have.

    A path says nothing about whether its file exists: observers and tuners write only some of them.
    """

    path: Path

    @property
    def is_run(self) -> bool:
        """Return whether there is a database, so that the folder can be read as a run."""
        return self.database.is_file()

    @property
    def recipe(self) -> Path:
        """Return the recipe as it was run, overrides included. A folder with one can be resumed."""
        return self.path / RECIPE

    @property
    def database(self) -> Path:
        """Return the SQLite database with all records."""
        return self.path / DATABASE

    @property
    def write_ahead_log(self) -> Path:
        """Return the log that SQLite writes first: it may be newer than the database."""
        return self.path / f"{DATABASE}-wal"

    @property
    def lock(self) -> Path:
        """Return the file that a process locks while it works on the run."""
        return self.path / "run.lock"

    @property
    def events(self) -> Path:
        """Return the events of the run, a JSON object a line (observer `jsonl`)."""
        return self.path / EVENTS

    @property
    def diversity(self) -> Path:
        """Return the diversity of each round's questions, a JSON object a line (`diversity`)."""
        return self.path / "diversity.jsonl"

    @property
    def report(self) -> Path:
        """Return the HTML page (observer and command `report`)."""
        return self.path / REPORT

    @property
    def evaluation(self) -> Path:
        """Return the figures of `selfloop eval`."""
        return self.path / "eval.json"

    @property
    def evaluated_answers(self) -> Path:
        """Return the single answers of `selfloop eval`, as a table."""
        return self.path / "eval.parquet"

    @property
    def calibration(self) -> Path:
        """Return the weights that the detector `combined` fitted on this run's own answers."""
        return self.path / "calibration.json"

    @property
    def single_calibration(self) -> Path:
        """Return the weights that `combined` fitted for answers without samples."""
        return self.path / "calibration-single.json"

    @property
    def calibration_on_labels(self) -> Path:
        """Return the weights that `selfloop calibrate` fitted on gold answers."""
        return self.path / "calibration-labels.json"

    @property
    def tensorboard(self) -> Path:
        """Return the folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def mlruns(self) -> Path:
        """Return the store of MLflow that is used where no server is named."""
        return self.path / "mlruns"

    @property
    def adapters(self) -> Path:
        """Return the folder in which each tune has its own."""
        return self.path / ADAPTERS

    def probe(self, name: str) -> Path:
        """Return the weights of a trained probe, by its detector's name."""
        return self.path / f"{name}.json"

    def tracker_id(self, tracker: str) -> Path:
        """Return the file with the id under which a tracker has this run."""
        return self.path / f"{tracker}.id"

    def adapter(self, round_number: int) -> Path:
        """Return the folder of the adapter that the tuner makes in a round."""
        return self.adapters / f"round-{round_number:03d}"

    def gate(self, round_number: int) -> Path:
        """Return the measurements of the tuner's gate in a round."""
        return gate_file(self.adapter(round_number))

    def tuned_rounds(self) -> list[int]:
        """Return the numbers of the rounds in which a tuner began, in order."""
        names = (path.name for path in self.adapters.glob("*"))
        matches = (_ADAPTER.fullmatch(name) for name in names)
        return sorted(int(match[1]) for match in matches if match)


def gate_file(adapter_folder: Path) -> Path:
    """Return the measurements of a tuner's gate, in the folder of its adapter.

    An exported adapter has such a folder too, outside any run.
    """
    return adapter_folder / GATE


def runs_in(folder: Path) -> Iterator[Path]:
    """Yield the folders of the runs that lie in `folder`, in no order. Raises OSError."""
    for database in folder.glob(f"*/{DATABASE}"):
        yield database.parent
