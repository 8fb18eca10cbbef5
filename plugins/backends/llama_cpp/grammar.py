"""Text that keeps to a grammar: llama.cpp's GBNF, or a JSON schema, which becomes one."""

import ctypes
import json
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from llama_cpp.llama_grammar import json_schema_to_gbnf
from numpy.typing import NDArray

from selfloop.errors import RequestError
from selfloop.records import Sampling

from .model import Model, lib, log

# llama_token_data
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Grammar:
    """The state of one sample in its grammar.

    Raises RequestError for a grammar that llama.cpp cannot read.
    """

    def __init__(self, model: Model, sampling: Sampling) -> None:
        text = sampling.grammar or _from_schema(sampling.json_schema)
        try:
            rules = text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"the grammar is no text: {error}") from error
        self._sampler: Any = log().call(
            lib.llama_sampler_init_grammar, model.vocab, rules, b"root", free=lib.llama_sampler_free
        )
        if not self._sampler:
            raise RequestError(
                f"llama.cpp cannot read the grammar (its start is `root`): {log().reason}"
            )
        weakref.finalize(self, lib.llama_sampler_free, self._sampler)

    def allows(self, token: int) -> bool:
        """Return whether a token may come next."""
        candidate = np.array([(token, 0.0, 0.0)], _CANDIDATE)
        self._apply(candidate)
        return bool(np.isfinite(candidate["logit"][0]))

    def mask(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a row of logits with minus infinity for every token that may not come next."""
        candidates = np.zeros(len(row), _CANDIDATE)
        candidates["id"], candidates["logit"] = np.arange(len(row)), row
        self._apply(candidates)
        masked: NDArray[np.float32] = candidates["logit"].copy()
        if not np.isfinite(masked.max()):
            raise RequestError("the grammar allows no token of this model's vocabulary here")
        return masked

    def accept(self, token: int) -> None:
        """Go on by a token that is allowed."""
        lib.llama_sampler_accept(self._sampler, token)

    def _apply(self, candidates: NDArray[np.void]) -> None:
        """Let llama.cpp set the logits of tokens that may not come next to minus infinity."""
        data = candidates.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))
        array = lib.llama_token_data_array(
            data=data, size=len(candidates), selected=-1, sorted=False
        )
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))


# Keywords that llama-cpp-python's converter turns into rules, and those that say nothing about the
# text. It silently passes over all others, so they are refused.
_SUPPORTED = {
    "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "format", "items",
    "maxItems", "maxLength", "minItems", "minLength", "oneOf", "pattern", "prefixItems",
    "properties", "required", "type",
    "$comment", "$defs", "$id", "$schema", "default", "definitions", "description", "examples",
    "title",
}  # fmt: skip
# The converter's rule for a string's characters allows line breaks. JSON does not.
_CHARACTERS = ('[^"\\\\]', '[^"\\\\\\x00-\\x1F\\x7F]')


def _from_schema(schema: str) -> str:
    try:
        parsed = json.loads(schema)
        unsupported = sorted(set(_keywords(parsed)) - _SUPPORTED)
        if unsupported:
            raise RequestError(
                f"the JSON schema has {', '.join(unsupported)}, which a grammar cannot be held to"
            )
        return str(json_schema_to_gbnf(schema)).replace(*_CHARACTERS)
    except (
        ValueError,
        KeyError,
        TypeError,
        AssertionError,
        AttributeError,
        RecursionError,
    ) as error:
        raise RequestError(f"the JSON schema cannot be read: {error}") from error


def _keywords(schema: Any) -> Iterator[str]:
    """Yield the keywords of a schema and of the schemas in it."""
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        yield key
        if key in ("properties", "$defs", "definitions"):
            for inner in value.values():
                yield from _keywords(inner)
        elif key in ("items", "additionalProperties", "oneOf", "anyOf", "allOf", "prefixItems"):
            for inner in value if isinstance(value, list) else [value]:
                yield from _keywords(inner)
