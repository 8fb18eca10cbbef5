"""The backend `hf`: any causal language model that transformers can load, on CPU or GPU.

Only names and options are here, so that listing plugins imports neither torch nor transformers.
"""

from typing import TYPE_CHECKING

from selfloop_plugins._shared.options import takes
from selfloop_plugins._torch import GIVES
from selfloop_plugins._torch.options import HfOptions

from selfloop.errors import MissingExtraError
from selfloop.protocols import Component
from selfloop.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from selfloop_plugins._torch.backend import Transformers


@takes(HfOptions)
def build(options: HfOptions) -> "Transformers":
    """Load a model; `batch` rows are computed at once, also where fewer are wanted (default: 16, on
    a GPU 64).

    `model` is a folder, a name on the Hugging Face hub, or a GGUF file or name as for `llama_cpp`,
    which is converted once and kept. `auto` computes in bfloat16 where the hardware has it, else in
    float32. `trust_remote_code` runs programs that come with a model: only where you have read
    them. Raises MissingExtraError without transformers, ModelError for a model that cannot be
    loaded.
    """
    try:
        from selfloop_plugins._torch.backend import Transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "hf", "The backend hf") from error
    return Transformers(options)


@takes(HfOptions)
def check(options: HfOptions) -> None:
    """Raise the errors that can be seen without loading or fetching.

    Such are: no such file, folder or name, and a licence that was not accepted.
    """
    from selfloop_plugins._torch.checkpoint import check as check_model

    check_model(options.model)


@hookimpl
def selfloop_backends() -> list[Component]:
    """Offer the backend."""
    doc = "any causal model of transformers, or a GGUF file it can convert, on CPU or GPU"
    return [
        Component("hf", build, doc=doc, gives=GIVES, check=check, extra="hf", docs="docs/hf.md")
    ]
