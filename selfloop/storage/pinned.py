"""The model that a run was made with: all that goes on with the run uses the same.

The run's other inputs, question files and so on: `selfloop.config.inputs`.
"""

from collections.abc import Mapping
from typing import Any

from selfloop.errors import ModelError, SelfloopError


def verify_model(
    pinned: Mapping[str, Any],
    sha256: str,
    otherwise: str = "start a new run",
    error: type[SelfloopError] = ModelError,
) -> None:
    """Raise `error` if the model is not the one that the run pinned.

    `otherwise` is the advice for a user who no longer has the old file.
    """
    before = str(pinned.get("sha256", ""))
    if before != sha256:
        raise error(
            f"this run was made with {pinned.get('file')} (sha256 {before[:12]}), but the file is "
            f"now another (sha256 {sha256[:12]}). Put the old file back, or {otherwise}."
        )
