"""What `selfloop ask` says to twenty questions that a small model may know, and to twenty about
what does not exist.

    python benchmarks/ask.py [MODEL]                       # gemma-3-270m; half a minute

It runs the command itself, in a process of its own, with its default recipe, and prints one table
for each twenty.
"""

import json
import subprocess
import sys
from typing import Any

REAL = {
    "What is the capital of Indonesia?": "Jakarta", "What is the capital of France?": "Paris",
    "What is the capital of Kenya?": "Nairobi", "What is the capital of Peru?": "Lima",
    "What is the chemical symbol for gold?": "Au", "Who wrote the novel \"1984\"?": "George Orwell",
    "Who painted the Mona Lisa?": "Leonardo da Vinci",
    "What is the largest ocean on Earth?": "Pacific",
    "In which country is the Great Pyramid of Giza?": "Egypt",
    "What is the currency of Japan?": "yen",
    "Who developed the theory of relativity?": "Albert Einstein",
    "How many days are there in a leap year?": "366",
    "What language is spoken in Brazil?": "Portuguese",
    "What is the longest river in Africa?": "Nile",
    "Who was the first president of the United States?": "George Washington",
    "Which gas do plants absorb?": "carbon dioxide",
    "In which year did World War II end?": "1945", "What is the square root of 144?": "12",
    "Who composed the opera \"The Magic Flute\"?": "Mozart",
    "What is the hardest natural substance?": "diamond",
}  # fmt: skip
UNREAL = (
    "What is the capital of Zorvania?", "Who wrote the novel \"The Glass Orchard of Venn\"?",
    "What is the currency of the Republic of Talmor?", "Who discovered the element Brelium?",
    "In which year was the Treaty of Quorneth signed?", "Who was the first king of Zorvania?",
    "What is the largest city in Marrowland?", "Who painted \"The Weeping Clock of Adra\"?",
    "Which river flows through the city of Ostrevia?",
    "Who composed the opera \"Lady Thornquill\"?",
    "What is the chemical symbol for vexonium?", "Who founded the company Blipterra?",
    "In which country is Mount Kelvarro?", "What language is spoken in Drenmark?",
    "Who won the 1987 Falconbridge Prize for botany?", "What is the highest mountain in Quelaria?",
    "Which planet does the moon Tessaly orbit?", "Who directed the film \"Eleven Rusted Suns\"?",
    "What is the national animal of Pelovia?", "Who invented the hydrostatic plonker?",
)  # fmt: skip


def main() -> None:
    """Ask all, and print."""
    model = sys.argv[1] if len(sys.argv) > 1 else "gemma-3-270m"
    print(f"selfloop ask {model} ...")
    print("\n| question | true answer | it says | confidence | its guess |\n|---|---|---|---|---|")
    found = asked(model, *REAL)
    for (question, answer), one in zip(REAL.items(), found, strict=True):
        print(f"| {question} | {answer} | {row(one)} |")
    print(f"\nanswered {sum(one['known'] for one in found)} of {len(found)}")
    print("\n| question about nothing | it says | confidence | its guess |\n|---|---|---|---|")
    found = asked(model, *UNREAL)
    for question, one in zip(UNREAL, found, strict=True):
        print(f"| {question} | {row(one)} |")
    print(f'\n"I don\'t know" to {sum(not one["known"] for one in found)} of {len(found)}')


def asked(model: str, *questions: str) -> list[dict[str, Any]]:
    """Return what the command prints as JSON."""
    command = [sys.executable, "-m", "selfloop.cli", "ask", model, "--json", *questions]
    found: list[dict[str, Any]] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    )
    return found


def row(one: dict[str, Any]) -> str:
    """Return the cells of an answer."""
    sure = "-" if one["confidence"] is None else f"{one['confidence']:.2f}"
    said = f"**{one['answer']}**" if one["known"] else one["answer"]
    guess = "" if one["known"] else one["guess"].replace("|", "\\|")
    return f"{said} | {sure} | {guess}"


if __name__ == "__main__":
    main()
