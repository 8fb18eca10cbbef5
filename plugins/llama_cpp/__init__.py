"""The backend `llama_cpp`: one GGUF file, many sequences in one batch, on the CPU.

model.py     the file: loading it, its vocabulary, what it says of itself
chat.py      chat messages -> pieces of text, of which only the template's own may hold special tokens
sampling.py  a row of logits -> one token and its log-probability
engine.py    the KV cache and the scheduler: which rows go into each call of llama_decode
backend.py   the four above as a `selfloop.protocols.Backend`

Only names and signatures are here, so that listing plugins imports neither numpy nor llama_cpp.
"""

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from selfloop.errors import MissingExtra
from selfloop.hookspecs import hookimpl
from selfloop.protocols import Component

from .. import models

if TYPE_CHECKING:
    from .backend import LlamaCpp

MAX_SEQUENCES = 254  # llama.cpp knows 256; the engine needs two for itself
GIVES = frozenset({"logprobs", "chat", "adapters"})


def build(
    *,
    model: str,
    n_ctx: Annotated[int, Ge(64), Le(2**30)] = 8192,
    sequences: Annotated[int, Ge(1), Le(MAX_SEQUENCES)] = 32,
    threads: Annotated[int, Ge(1), Le(512)] | None = None,
) -> "LlamaCpp":
    """Load a model: `n_ctx` tokens of cache shared by up to `sequences` completions that are written at once.

    `model` is a .gguf file or a name (see `selfloop_plugins.models`); `threads` defaults to the physical cores.
    Raises MissingExtra without llama-cpp-python, ModelError for a file or a size that cannot be had.
    """
    try:
        from .backend import LlamaCpp
    except ModuleNotFoundError as error:
        package = "llama-cpp-python" if error.name == "llama_cpp" else str(error.name)
        raise MissingExtra(package, "llamacpp", "The backend llama_cpp") from error
    return LlamaCpp(models.locate(model), n_ctx=n_ctx, sequences=sequences, threads=threads)


def check(
    *,
    model: str,
    n_ctx: int = 8192,
    sequences: int = 32,
    threads: int | None = None,
) -> None:
    """Raise what can be seen without loading or fetching: no such file or name, not a GGUF, licence not accepted."""
    models.check(model)


@hookimpl
def selfloop_backends() -> list[Component]:
    """Offer the backend."""
    doc = "a GGUF file on the CPU, many sequences in a batch; answers do not depend on the batch"
    return [Component("llama_cpp", build, doc=doc, gives=GIVES, check=check)]
