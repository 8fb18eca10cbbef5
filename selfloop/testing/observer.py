"""What an observer must do."""

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
from selfloop.testing.contract import Contract
from selfloop.testing.scripted import ScriptedBackend
from selfloop.testing.told import events

# what a terminal would act on in `HOSTILE`; an observer may have colours itself
ACTS = ("\x1b[31m{", "\u202e", "\x00")


class ObserverContract(Contract):
    """Subclass, set `component` (and `options`), run pytest."""

    methods = ("notice", "close")

    def watch(self, home: Path, seen: Sequence[Event] | None = None) -> str:
        """Let a new observer see a run in `home/run`, or these events of it; return what it
        printed.

        The folder has what a run's has: recipe and database, and in it each round before the
        observer hears of its end.
        """
        folder = home / "run"
        folder.mkdir(parents=True, exist_ok=True)
        _begin(folder)
        with _printed() as out, chdir(home):
            observer = self.build(folder)
            for event in events(folder) if seen is None else seen:
                if isinstance(event, RoundEnded):
                    _store(folder, event.round)
                before = repr(event)
                observer.notice(event)
                assert repr(event) == before, (
                    f"notice() changed the {type(event).__name__}; others see it too"
                )
            observer.close()
        return out.getvalue()

    def test_it_takes_every_event(self, tmp_path: Path) -> None:
        """Raise at none, whatever a model wrote; and print nothing that a terminal would act on."""
        out = self.watch(tmp_path)
        acts = [ascii(text) for text in ACTS if text in out]
        assert not acts, (
            f"it prints {', '.join(acts)} as the model wrote it; use "
            "selfloop.text.display.printable"
        )

    def test_a_run_may_end_anywhere(self, tmp_path: Path) -> None:
        """Be closed after any event: a run may be stopped, and may fail before it begins."""
        for number in range(len(events(tmp_path))):
            home = tmp_path / f"after {number}"
            self.watch(home, events(home / "run")[:number])
        home = tmp_path / "failed"
        self.watch(home, [*events(home / "run")[:5], RunEnded(str(home / "run"), "failed", "why")])

    def test_a_run_may_go_on(self, tmp_path: Path) -> None:
        """Take up a folder in which an observer was before."""
        for _ in range(2):
            self.watch(tmp_path)

    def test_it_closes_what_it_opened(self, tmp_path: Path) -> None:
        """Leave no file open after `close()`, and no thread at work."""
        files, threads = _open_files(), set(threading.enumerate())
        self.watch(tmp_path)
        left = [
            str(getattr(file, "name", file))
            for key, file in _open_files().items()
            if key not in files
        ]
        assert not left, f"after close() still open: {', '.join(sorted(set(left)))}"
        running = [
            thread.name for thread in set(threading.enumerate()) - threads if thread.is_alive()
        ]
        assert not running, f"after close() still at work: the threads {', '.join(running)}"

    def test_it_writes_into_the_run_alone(self, tmp_path: Path) -> None:
        """Leave nothing in the folder that the command was called from."""
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
            store.files.recipe, "rounds: 1\nbackend: scripted\nask: {questions: 6, sources: [blank_slate]}\n"
        )


def _store(folder: Path, ended: Round) -> None:
    with closing(Store(folder, write=True)) as store:
        if ended.number not in {one.number for one in store.rounds()}:
            store.save_round(ended)


@contextmanager
def _printed() -> Iterator[io.StringIO]:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        yield out


def _open_files() -> dict[int, Any]:
    """Return the files that are open in this process, by their identity."""
    kinds = (io.FileIO, io.BufferedWriter, io.BufferedReader, io.BufferedRandom, io.TextIOWrapper)
    found = [one for one in gc.get_objects() if type(one) in kinds]
    return {id(file): file for file in found if not file.closed}
