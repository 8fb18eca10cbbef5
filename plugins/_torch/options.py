"""The options of a model of transformers. This module imports neither torch nor transformers."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class HfOptions:
    """The options of the backend `hf`, which the tuner and the export use too."""

    model: str
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Dtype = "auto"
    batch: Annotated[int, Ge(1), Le(1024)] | None = None
    threads: Annotated[int, Ge(1), Le(512)] | None = None
    trust_remote_code: bool = False
