"""Where the prompt files of the built-in components are."""

from pathlib import Path

PROMPTS = Path(__file__).parent.parent / "prompts"
