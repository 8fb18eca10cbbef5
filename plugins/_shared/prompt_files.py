"""Where the prompt files of the built-in components are."""

from pathlib import Path

# NAME.base.txt for base models, NAME.chat.txt for chat models
PROMPTS = Path(__file__).parent.parent / "prompts"
