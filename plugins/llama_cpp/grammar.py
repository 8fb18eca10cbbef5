"""Text that keeps to a grammar: llama.cpp's GBNF, or a JSON schema, which becomes one."""

import ctypes
import json
import weakref
from typing import Any

import numpy as np
from llama_cpp.llama_grammar import json_schema_to_gbnf
from numpy.typing import NDArray

from selfloop.errors import RequestError
from selfloop.records import Sampling

from .model import Model, lib, log

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Grammar:
    """Where a sample stands in its grammar. Raises RequestError for a grammar that llama.cpp cannot read."""

    def __init__(self, model: Model, sampling: Sampling) -> None:
        text = sampling.grammar or _from_schema(sampling.json_schema)
        with log().listening() as said:
            self._sampler: Any = lib.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
        if not self._sampler:
            raise RequestError(f"llama.cpp cannot read the grammar (its start is `root`): {said.reason}")
        weakref.finalize(self, lib.llama_sampler_free, self._sampler)

    def allows(self, token: int) -> bool:
        """Return whether a token may come next."""
        one = np.array([(token, 0.0, 0.0)], _CANDIDATE)
        self._apply(one)
        return bool(np.isfinite(one["logit"][0]))

    def mask(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a row of logits with minus infinity for every token that may not come next."""
        every = np.zeros(len(row), _CANDIDATE)
        every["id"], every["logit"] = np.arange(len(row)), row
        self._apply(every)
        masked: NDArray[np.float32] = every["logit"].copy()
        if not np.isfinite(masked.max()):
            raise RequestError("the grammar allows no token of this model's vocabulary here")
        return masked

    def accept(self, token: int) -> None:
        """Go on by a token that is allowed."""
        lib.llama_sampler_accept(self._sampler, token)

    def _apply(self, candidates: NDArray[np.void]) -> None:
        data = candidates.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))
        array = lib.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))


def _from_schema(schema: str) -> str:
    try:
        json.loads(schema)
        return str(json_schema_to_gbnf(schema))
    except (ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
        raise RequestError(f"the JSON schema cannot be read: {error}") from error
