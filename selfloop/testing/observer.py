"""The requirements on an observer."""

import gc
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import chdir, closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfloop.events import Event, RoundEnded, RunEnded
from selfloop.records import Round
from selfloop.storage.store import Store
from selfloop.testing.contexts import events
from selfloop.testing.contract import Contract
from selfloop.testing.scripted import ScriptedBackend

# The parts of `HOSTILE` that a terminal acts on. An observer may use colours of its own.
TERMINAL_ACTIONS = ("\x1b[31m{", "\u202e", "\x00")


class ObserverContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("on_event", "close")

    def watch(self, home: Path, seen: Sequence[Event] | None = None) -> str:
        """Show a new observer the events of a run in `home/run`, or `seen`; return its output.

        The folder has the recipe and the database of a run. A round is stored before the observer
        gets the event of its end.
        """
        folder = home / "run"
        folder.mkdir(parents=True, exist_ok=True)
        _begin(folder)
        with _captured_output() as output, chdir(home):
            observer = self.build(folder)
            for event in events(folder) if seen is None else seen:
                if isinstance(event, RoundEnded):
                    # observers may read the database: in a run the round is in it by now
                    _store(folder, event.round)
                before = repr(event)
                observer.on_event(event)
                assert repr(event) == before, (
                    f"on_event() changed the {type(event).__name__}; others see it too"
                )
            observer.close()
        return output.getvalue()

    def test_it_takes_every_event(self, tmp_path: Path) -> None:
        """Accept any text of a model, and print nothing of it that a terminal acts on."""
        output = self.watch(tmp_path)
        actions = [ascii(text) for text in TERMINAL_ACTIONS if text in output]
        assert not actions, (
            f"it prints {', '.join(actions)} as the model wrote it; use "
            "selfloop.text.display.printable"
        )

    def test_a_run_may_end_anywhere(self, tmp_path: Path) -> None:
        """Close after any event: a run may be stopped, and may fail before it begins."""
        # once for each prefix of the events, the empty one included
        for number in range(len(events(tmp_path))):
            home = tmp_path / f"after {number}"
            self.watch(home, events(home / "run")[:number])
        home = tmp_path / "failed"
        self.watch(home, [*events(home / "run")[:5], RunEnded(str(home / "run"), "failed", "why")])

    def test_a_run_may_go_on(self, tmp_path: Path) -> None:
        """Accept a folder in which an observer worked before."""
        for _ in range(2):
            self.watch(tmp_path)

    def test_it_closes_what_it_opened(self, tmp_path: Path) -> None:
        """Leave no file open after `close()`, and no thread at work."""
        # before and after: the test process has files and threads of its own
        files, threads = _open_files(), set(threading.enumerate())
        self.watch(tmp_path)
        left_open: set[str] = set()
        for identity, file in _open_files().items():
            if identity not in files:
                left_open.add(str(getattr(file, "name", file)))
        assert not left_open, f"after close() still open: {', '.join(sorted(left_open))}"
        new_threads = set(threading.enumerate()) - threads
        running = [thread.name for thread in new_threads if thread.is_alive()]
        assert not running, f"after close() still at work: the threads {', '.join(running)}"

    def test_it_writes_into_the_run_alone(self, tmp_path: Path) -> None:
        """Write no file into the current folder."""
        self.watch(tmp_path)
        beside = sorted(path.name for path in tmp_path.iterdir() if path.name != "run")
        assert not beside, (
            f"it left {', '.join(beside)} outside the run's folder; take a parameter `folder: Path`"
        )


def _begin(folder: Path) -> None:
    with closing(Store(folder, write=True)) as store:
        model = ScriptedBackend().describe()
        store.set_meta(
            name="test",
            base=str(folder),
            model=asdict(model) | {"capabilities": sorted(model.capabilities)},
        )
        store.save_file(
            store.files.recipe,
            "rounds: 1\nbackend: scripted\nask: {questions: 6, sources: [blank_slate]}\n",
        )


def _store(folder: Path, ended: Round) -> None:
    with closing(Store(folder, write=True)) as store:
        if ended.number not in {stored.number for stored in store.rounds()}:
            store.save_round(ended)


@contextmanager
def _captured_output() -> Iterator[io.StringIO]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        yield output


def _open_files() -> dict[int, Any]:
    """Return the files that Python has open in this process, by their identity."""
    kinds = (io.FileIO, io.BufferedWriter, io.BufferedReader, io.BufferedRandom, io.TextIOWrapper)
    files = [item for item in gc.get_objects() if type(item) in kinds]
    return {id(file): file for file in files if not file.closed}
