"""Models in PyTorch, for everything that needs one: the backend `hf`, the tuner `lora`, the export.

checkpoint.py a model's name in a recipe -> a folder for transformers; a GGUF file is converted once
memory.py     whether a model fits, checked before it is loaded or trained
model.py      the loaded model and its vocabulary
engine.py     tokens in, outputs out, in batches of one shape: a result is the same in any batch
adapter.py    an adapter as peft saves it -> a GGUF file, for llama.cpp
backend.py    all of the above as a `selfloop.protocols.Backend` (most of which is in `_decoding`)
"""

GIVES = frozenset(
    {"logprobs", "entropies", "chat", "loglikelihood", "hidden_states", "attentions", "adapters"}
)
