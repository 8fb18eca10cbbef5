"""The backend `llama_cpp`: one GGUF file, many sequences in one batch, on the CPU.

model.py     the file: loading it, its vocabulary, its metadata
grammar.py   text that keeps to a grammar or a JSON schema
cache.py     the KV cache: tokens in, logits out, the same bits in any batch
tree.py      prefixes that prompts share are read once
scheduler.py which rows go into each call of llama_decode
context.py   how large a cache, and whether there is memory for it
backend.py   all of the above as a `selfloop.protocols.Backend` (most of which is in `_decoding`)

weights.py   the working copy: the same model in the format that is the fastest here
requantise.py         makes it, in a process of its own
reference_prompts.py  the text and questions on which it is compared with the shipped file

Only names and options are here, so that listing plugins imports neither numpy nor llama_cpp.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le
from selfloop_plugins import models
from selfloop_plugins._shared.options import takes

from selfloop.errors import MissingExtraError
from selfloop.protocols import Component
from selfloop.records import ModelInfo
from selfloop.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from .backend import LlamaCpp

MAX_SEQUENCES = 128  # of the 254 that llama.cpp leaves us; the prompts need some too
GIVES = frozenset({"logprobs", "entropies", "chat", "loglikelihood", "hidden_states", "adapters"})

Weights = Literal["shipped", "auto", "q4_0", "q8_0", "bf16", "f16"]


@dataclass(frozen=True, kw_only=True)
class LlamaCppOptions:
    """The options of the backend; see `build`."""

    model: str
    n_ctx: Annotated[int, Ge(64), Le(2**30)] | None = None
    sequences: Annotated[int, Ge(1), Le(MAX_SEQUENCES)] | None = None
    threads: Annotated[int, Ge(1), Le(512)] | None = None
    weights: Weights = "shipped"


@takes(LlamaCppOptions)
def build(options: LlamaCppOptions) -> "LlamaCpp":
    """Load a model: `n_ctx` tokens of cache shared by up to `sequences` completions that are
    written at once.

    `model` is a .gguf file or a name (see `selfloop_plugins.models`). By default the cache is as
    large as the requests want it and memory allows, 64 sequences are written at once, and `threads`
    are the physical cores. `weights` is the format that is computed with: a copy of the file is
    made once where it is not the shipped one. `auto` measures the formats once, and takes the
    fastest in a batch on this machine. Raises MissingExtraError without llama-cpp-python,
    ModelError for a file or a size that cannot be had.
    """
    try:
        from .backend import LlamaCpp
        from .weights import converted_weights
    except ModuleNotFoundError as error:
        package = "llama-cpp-python" if error.name == "llama_cpp" else str(error.name)
        raise MissingExtraError(package, "llamacpp", "The backend llama_cpp") from error
    weights = converted_weights(models.locate(options.model), options.weights, options.threads)
    return LlamaCpp(
        weights.path,
        n_ctx=options.n_ctx,
        sequences=options.sequences,
        threads=options.threads,
        about=weights.about,
    )


@takes(LlamaCppOptions)
def check(options: LlamaCppOptions) -> None:
    """Raise the errors that can be seen without loading or fetching.

    Such are: no such file or name, a file that is not a GGUF, and a licence that was not accepted.
    """
    models.check(options.model)


def advise(info: ModelInfo) -> list[str]:
    """Return advice for `selfloop plan`: another format of the weights may be faster."""
    if dict(info.versions).get("weights") != "shipped":
        return []
    return [
        "the weights are used as shipped. weights: auto measures, once, whether another format is "
        "faster here."
    ]


@hookimpl
def selfloop_backends() -> list[Component]:
    """Offer the backend."""
    doc = "a GGUF file on the CPU, many sequences in a batch; answers do not depend on the batch"
    return [
        Component(
            "llama_cpp",
            build,
            doc=doc,
            gives=GIVES,
            check=check,
            extra="llamacpp",
            advise=advise,
            docs="docs/engine.md",
        )
    ]
