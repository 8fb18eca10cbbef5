"""Vectors of texts that are near each other where the texts are alike: the model's own states, or a
sentence model.

Hidden states are those of the last layer at the end of a prompt that asks for the text in one word
(PromptEOL, Jiang et al. 2023, arXiv 2307.16645). What all texts have in common is most of such a
state; the mean over fixed sentences takes it off, so that a text's vector depends on no other text
of the call.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from selfloop.errors import MissingExtra, RecipeError, RequestError
from selfloop.protocols import Backend
from selfloop.records import Continuation

from .queries import line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Embedder = Literal["hidden", "sentence_transformer"]
# Self-Prompting's (Li et al. 2022, arXiv 2212.08635)
SENTENCE_MODEL = "sentence-transformers/all-mpnet-base-v2"
NEUTRAL = (
    "The weather was fine on that day.", "She opened the door and went in.", "What time does the shop close?",
    "There are many ways to do this.", "He has worked here for ten years.", "Where can I buy a ticket?",
    "Water is heated in a large pot.", "The book lies on the table.", "Who is going to pay for it?",
    "They met again in the spring.", "It costs more than it did last year.", "How long does the journey take?",
    "A dog ran across the street.", "The old bridge was built of stone.", "Why is the sky dark at night?",
    "Music was playing in the next room.",
)  # fmt: skip


def embed(
    texts: Sequence[str], backend: Backend, by: Embedder = "hidden", model: str = SENTENCE_MODEL
) -> "NDArray[np.float32]":
    """Return a row of length 1 for each text, (texts, width); one of zeros for a text that cannot
    be embedded.

    `hidden` needs the capability `hidden_states`; `sentence_transformer` loads `model`, a name of
    the Hugging Face hub or a folder. Raises MissingExtra or RecipeError where it cannot be had.
    """
    import numpy as np

    if by == "sentence_transformer":
        found = (
            _transformer(model).encode(list(map(line, texts)), show_progress_bar=False)
            if texts
            else []
        )
        return _unit(np.asarray(found, np.float32).reshape(len(texts), -1 if texts else 1))
    states = [*_states(NEUTRAL, backend), *_states(texts, backend)]
    known = [state for state in states if state is not None]
    if not known:
        return np.zeros((len(texts), 1), np.float32)
    common = [state for state in states[: len(NEUTRAL)] if state is not None]
    mean = np.mean(common, axis=0) if common else np.zeros_like(known[0])
    rows = [
        np.zeros_like(mean) if state is None else state - mean for state in states[len(NEUTRAL) :]
    ]
    return _unit(np.reshape(rows, (len(texts), len(mean))))


def check(by: Embedder, model: str) -> None:
    """Raise MissingExtra or RecipeError for what can be seen to be missing without loading it."""
    if by != "sentence_transformer":
        return
    if find_spec("sentence_transformers") is None:
        raise MissingExtra("sentence_transformers", "embeddings", "embedding by a sentence model")
    if not model.strip():
        raise RecipeError(
            "no sentence model is named. Give a folder or a name of the hub, such as "
            f"{SENTENCE_MODEL}."
        )


def _states(texts: Sequence[str], backend: Backend) -> "list[NDArray[np.float64] | None]":
    """Return the state after each text, None where the backend refuses it or gives what is not a number."""
    import numpy as np

    pairs = [
        Continuation("", f'This sentence: "{line(text)}" means in one word: "') for text in texts
    ]
    found = backend.hidden_states(pairs, (-1,)) if pairs else []
    known = [
        None if isinstance(one, RequestError) else np.asarray(one[0], np.float64) for one in found
    ]
    return [one if one is not None and np.isfinite(one).all() else None for one in known]


def _unit(rows: "NDArray[np.floating[Any]]") -> "NDArray[np.float32]":
    """Return rows of length 1; what has no length, or is not a number, is a row of zeros."""
    import numpy as np

    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


@lru_cache(maxsize=1)
def _transformer(model: str) -> Any:
    check("sentence_transformer", model)
    try:
        load = import_module("sentence_transformers").SentenceTransformer
        return load(model, trust_remote_code=False, model_kwargs={"use_safetensors": True})
    except Exception as error:  # whatever the library, or what it stands on, raises
        raise RecipeError(
            f"cannot load the sentence model {model}: {str(error).rstrip('.')}. Give the folder "
            "of one with its "
            "weights in safetensors, or a name of the Hugging Face hub."
        ) from error
