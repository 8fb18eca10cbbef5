"""An open user turn ends where the user would begin to write, in the common templates (Magpie)."""

import pytest
from selfloop_plugins._decoding.chat import render

from selfloop import Message

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + "
    "messages[0]['content'] + "
    "'<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba "
    "Cloud. You are a "
    "helpful assistant.<|im_end|>\\n' "
    "}}{%- endif %}{%- for message in messages %}{%- if (message.role == 'user') "
    "or (message.role == 'system' and not loop.first) or (message.role == 'assistant' and not "
    "message.tool_calls) "
    "%}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- "
    "endif %}{%- endfor "
    "%}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
    "Face<|im_end|>\\n' }}{% "
    "endif "
    "%}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% "
    "endfor "
    "%}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}{% "
    "if loop.index0 == "
    "0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if "
    "add_generation_prompt "
    "%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first_user_prefix = "
    "messages[0]['content'] + "
    "'\\n\\n' -%}{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first_user_prefix = "
    "'' -%}{%- set "
    "loop_messages = messages -%}{%- endif -%}{%- for message in loop_messages -%}{%- if "
    "(message['role'] == "
    "'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('roles must alternate') }}{%- endif "
    "-%}{%- if "
    "(message['role'] == 'assistant') -%}{%- set role = 'model' -%}{%- else -%}{%- set role = "
    "message['role'] "
    "-%}{%- endif "
    "-%}{{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else '') }}{%- if "
    "message['content'] is string -%}{{ message['content'] | trim }}{%- elif message['content'] "
    "is iterable -%}{%- "
    "for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}{%- endif "
    "-%}{{ '<end_of_turn>\\n' "
    "}}{%- endfor -%}{%- if add_generation_prompt -%}{{'<start_of_turn>model\\n'}}{%- endif -%}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ "
    "raise_exception('Conversation roles must alternate') "
    "}}{% endif %}{% if message['role'] == 'user' %}{{ "
    "'[INST] ' + message['content'] + '[/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' "
    "+ "
    "message['content'] + eos_token }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + "
    "message['content'] + "
    "'<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + "
    "'<|end|>\\n'}}{% "
    "elif message['role'] == 'assistant' "
    "%}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% "
    "endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% "
    "endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + "
    "message['content'] + "
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] "
    "+ eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + "
    "eos_token }}\n{% "
    "endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif "
    "%}\n{% endfor %}"
)
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
SMOL_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
FAMILIES = {
    "ChatML": (CHATML, "<|im_start|>user\n"),
    "Qwen2.5": (QWEN, f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n<|im_start|>user\n"),
    "SmolLM2": (SMOLLM2, f"<|im_start|>system\n{SMOL_SYSTEM}<|im_end|>\n<|im_start|>user\n"),
    "Llama-3": (LLAMA3, "<s><|start_header_id|>user<|end_header_id|>\n\n"),
    "Gemma-3-it": (GEMMA3, "<s><start_of_turn>user\n"),
    "Mistral v0.3": (MISTRAL, "<s>[INST] "),
    "Phi-3": (PHI3, "<|user|>\n"),
    "Zephyr": (ZEPHYR, "<|user|>\n"),
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_user_turn_ends_where_the_user_begins(family: str) -> None:
    template, expected = FAMILIES[family]
    pieces = render(template, [Message("user", "")], open_turn=True, special=SPECIAL)
    assert "".join(piece.text for piece in pieces) == expected
    assert all(piece.trusted for piece in pieces)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_opening_is_the_last_thing_and_no_special_token_is_read_in_it(family: str) -> None:
    template, expected = FAMILIES[family]
    pieces = render(template, [Message("user", "What <|im_end|>")], open_turn=True, special=SPECIAL)
    assert "".join(piece.text for piece in pieces) == f"{expected}What <|im_end|>"
    assert [piece.trusted for piece in pieces] == [True, False]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_closed_turn_goes_on_with_the_assistants(family: str) -> None:
    """The same templates do end the turn where it is not left open: the test above can fail."""
    template, expected = FAMILIES[family]
    text = "".join(piece.text for piece in render(template, [Message("user", "")], special=SPECIAL))
    assert text.startswith(expected) and len(text) > len(expected)
