"""A command that torchrun or accelerate started in several processes at once."""

from selfloop import system
from selfloop.registry import builtin


def work_beside_run() -> int | None:
    """Return None in the process that is to play a run.

    In the other processes of a launch, work for that run until it ends, and return the exit code.
    Raises SelfloopError where they do not meet.
    """
    launched = system.launched()
    if launched is None:
        return None
    exit_code: int | None = builtin.library().join_launch(*launched)
    return exit_code
