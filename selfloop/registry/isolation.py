"""Keeps the process as it was around code of plugins: its output, its folder, its signal handlers.

The standard output belongs to the command: `selfloop show RUN --json` is read by programs. The
prints of a plugin go to the standard error output, each line with the plugin's name. Observers are
the exception, for showing is their purpose; with `--json` the rule holds for them too.

This guards against mistakes, not malice: a plugin is a program in the same process.
`docs/plugins.md` lists the limits.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

STDOUT, STDERR = 1, 2  # file descriptors

# whether the command's output is for a program, so that not even observers may write to it
_json = False


class AttributedOutput:
    """Stands in for `sys.stdout` in a plugin's call: writes whole lines to the standard error
    output, with a name.

    It may outlive the call, as the stream of a logging handler. Other threads write to the stream
    in whose place it stands: a live picture is drawn by a thread of its own.
    """

    def __init__(self, name: str, replaced: TextIO) -> None:
        self.name, self.replaced = name, replaced
        self._thread = threading.get_ident()
        self._begun = ""  # a line without its end yet

    def write(self, text: str) -> int:
        """Write the lines that are whole, and keep the rest."""
        if threading.get_ident() != self._thread:
            return self.replaced.write(text)
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._write_line(line)
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line is written when it is whole, or at the end of the call."""

    def end(self) -> None:
        """Write the last line if it was printed without a line break."""
        begun, self._begun = self._begun, ""
        if begun:
            self._write_line(begun)

    def isatty(self) -> bool:
        """Return False: a plugin has no terminal to draw on."""
        return False

    def _write_line(self, line: str) -> None:
        from selfloop.text.display import printable

        # a closed stream: the print of a plugin must not end a run
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{self.name} printed: {printable(line)}\n" if line.strip() else "")

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self.replaced, attribute)


@contextmanager
def attributed_output(name: str) -> Iterator[None]:
    """Send all prints to the standard error output, with a name before each line."""
    outer = sys.stdout
    user_stream = outer.replaced if isinstance(outer, AttributedOutput) else outer
    stream = AttributedOutput(name, user_stream)
    sys.stdout = stream
    try:
        yield
    finally:
        sys.stdout = outer
        stream.end()


@contextmanager
def observer_output(name: str) -> Iterator[None]:
    """Let an observer write to the standard output, also in the middle of a plugin's call.

    With `--json` it may not: that output is read by a program.
    """
    if _json:
        with attributed_output(name):
            yield
        return
    outer = sys.stdout
    if not isinstance(outer, AttributedOutput):
        yield
        return
    sys.stdout = outer.replaced
    try:
        yield
    finally:
        sys.stdout = outer


@contextmanager
def output_for_programs() -> Iterator[None]:
    """Keep the standard output for `click.echo` of the command alone: observers, C code and child
    processes too write to the standard error output.
    """
    global _json
    outer, before = sys.stdout, _json
    _json = True
    try:
        # Descriptor 1 leads elsewhere from here on, and `sys.stdout` to a copy of the old one, for
        # `click.echo`. A `sys.stdout` that is no descriptor (a test's) needs no copy.
        with _descriptor_to_stderr() as saved:
            if saved is None or not _writes_to(outer, STDOUT):
                yield
                return
            encoding, errors = outer.encoding, outer.errors
            with os.fdopen(os.dup(saved), "w", encoding=encoding, errors=errors) as stream:
                sys.stdout = stream
                yield
    finally:
        sys.stdout, _json = outer, before


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def _descriptor_to_stderr() -> Iterator[int | None]:
    """Let file descriptor 1 lead to the standard error output; yield a copy of the old one, None
    where there is none.

    That catches writes that do not pass Python's `sys.stdout`: `os.write`, C code, child processes.
    """
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    try:
        saved = os.dup(STDOUT)
        os.dup2(STDERR, STDOUT)
    except OSError:  # one of the two is closed
        yield None
        return
    try:
        yield saved
    finally:
        _flush_c_streams()
        os.dup2(saved, STDOUT)
        os.close(saved)


def _flush_c_streams() -> None:
    """Write out the prints of C code.

    Without `ctypes`, which only such plugins import, there is little of it.
    """
    ctypes = sys.modules.get("ctypes")
    if ctypes is not None:
        with suppress(Exception):
            ctypes.CDLL(None).fflush(None)


@contextmanager
def imports_of_plugins() -> Iterator[Callable[[], bool]]:
    """Undo the effects of plugins' imports on the process, and watch for Ctrl-C.

    Yield a function that returns whether the user has pressed it. A plugin can raise
    KeyboardInterrupt by itself, so only the signal tells.
    """
    pressed: list[int] = []
    try:
        handler = signal.getsignal(signal.SIGINT)
        # only the main thread may set a handler
        can_watch = callable(handler) and threading.current_thread() is threading.main_thread()
    except ValueError:
        handler, can_watch = None, False

    def note_and_pass_on(number: int, frame: FrameType | None) -> Any:
        pressed.append(number)
        assert callable(handler)
        return handler(number, frame)

    if can_watch:
        signal.signal(signal.SIGINT, note_and_pass_on)
    try:
        with _descriptor_to_stderr():
            yield lambda: bool(pressed)
    finally:
        # a plugin may have set a handler of its own meanwhile
        if can_watch:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def unchanged_process(name: str) -> Iterator[None]:
    """Name a plugin in each line that it prints as it is imported, and undo its changes.

    Undone are changes of the working directory, the streams, `sys.excepthook` and the recursion
    limit.
    """
    streams = (sys.stdin, sys.stdout, sys.stderr)
    hook, limit = sys.excepthook, sys.getrecursionlimit()
    folder = _working_directory()
    try:
        with attributed_output(name):
            yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        sys.excepthook = hook
        sys.setrecursionlimit(limit)
        if folder and _working_directory() != folder:
            with suppress(OSError):
                os.chdir(folder)


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # somebody has removed it
        return ""
