"""Models in PyTorch, for everything that needs one: the backend `hf`, the tuner `lora`, and the
export.

checkpoint.py a model's name in a recipe -> a folder that transformers loads; a GGUF file is converted once
memory.py     whether a model fits, checked before it is loaded or trained
model.py      the loaded model and its vocabulary
engine.py     tokens in, outputs out: batches of one shape, so that a result does not depend on the batch
adapter.py    an adapter as peft saves it -> a GGUF file, for llama.cpp
backend.py    all of the above as a `selfloop.protocols.Backend` (most of which is in `_decoding`)
"""

GIVES = frozenset(
    {"logprobs", "entropies", "chat", "loglikelihood", "hidden_states", "attentions", "adapters"}
)
