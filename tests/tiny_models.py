"""Configurations of tiny models of several architectures, and adapters with random weights."""

import peft
import torch
import transformers as T

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
CONFIGS = {
    "llama": (T.LlamaForCausalLM, T.LlamaConfig(**SIZES)),
    "mistral": (T.MistralForCausalLM, T.MistralConfig(**SIZES)),
    "qwen2": (T.Qwen2ForCausalLM, T.Qwen2Config(**SIZES)),
    "qwen3": (T.Qwen3ForCausalLM, T.Qwen3Config(**SIZES, head_dim=8)),
    "gemma2": (T.Gemma2ForCausalLM, T.Gemma2Config(**SIZES, head_dim=8)),
    "gemma3": (T.Gemma3ForCausalLM, T.Gemma3TextConfig(**SIZES, head_dim=8)),
    "phi3": (T.Phi3ForCausalLM, T.Phi3Config(**SIZES)),
}


def saved(folder, model, size=0.02, **options):
    """Save a LoRA of the model with random weights; return its configuration."""
    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | options
    torch.manual_seed(1)  # before the adapter is made: one of its two sides starts out random
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**options))
    for name, weights in wrapped.named_parameters():
        if "lora_B" in name:
            weights.data.normal_(0, size)
    wrapped.save_pretrained(folder)
    return model.config
