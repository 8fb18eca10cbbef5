"""llama-cpp-python's own client, as other programs use it: nothing of this room's engine is in it.

A file that selfloop delivers is measured with this client, for so people will meet it.
"""

from typing import Any

from llama_cpp import Llama, llama_cpp

from .model import uses_amx


class PlainLlama(Llama):
    """The client, kept from the AMX kernels where they crash, as our own models are (`uses_amx`).

    It takes the arguments of `llama_cpp.Llama`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        defaults = llama_cpp.llama_model_default_params

        def params_without_amx() -> Any:
            params = defaults()
            params.use_extra_bufts = not uses_amx()
            return params

        # the client has no argument for it, and takes all that it has not from these defaults
        llama_cpp.llama_model_default_params = params_without_amx
        try:
            super().__init__(*arguments, **options)
        finally:
            llama_cpp.llama_model_default_params = defaults
