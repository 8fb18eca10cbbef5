"""How long it takes to judge a finished run of 1,000 questions again, by every detector that needs
samples only.

    # smollm2-135m-instruct; a few minutes, most of it answering
    python benchmarks/rescore.py [MODEL]

The questions are made of forms and places (`generate.py`). A run answers them, then `selfloop
rescore` is timed as a person would run it, start-up included, on a copy that has no model to open.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from generate import questions

DETECTORS = (
    "agreement", "sequence_probability", "meaning_probability", "perplexity", "mean_token_entropy",
    "first_token_margin", "semantic_entropy", "discrete_semantic_entropy", "cocoa", "sar",
    "selfcheck_ngram",
    "arithmetic", "combined",
)  # fmt: skip


def main() -> None:
    """Run, rescore, and print the seconds."""
    model = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m-instruct"
    with tempfile.TemporaryDirectory() as home:
        rows = [{"question": question, "answers": ["?"]} for question in questions(1000)]
        (Path(home) / "asked.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
        begun = time.perf_counter()
        call(
            home, "eval", model, "--data", "asked.jsonl", "--set", "detectors=[agreement]", "--json"
        )
        print(f"{model}: {len(rows)} questions, answered in {time.perf_counter() - begun:.0f} s")
        begun = time.perf_counter()
        chosen = f"detectors=[{', '.join(DETECTORS)}]"
        told = json.loads(
            call(home, "rescore", "eval-asked", "--set", chosen, "--json", SELFLOOP_CACHE="nowhere")
        )
        seconds = time.perf_counter() - begun
        print(
            f"rescored with {len(DETECTORS)} detectors in {seconds:.1f} s; failures: "
            f"{told['failures']}"
        )


def call(home: str, *arguments: str, **environment: str) -> str:
    """Run the command line in `home`; return what it prints."""
    command = [sys.executable, "-m", "selfloop.cli", *arguments]
    done = subprocess.run(
        command,
        cwd=home,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env=os.environ | environment,
    )
    return done.stdout


if __name__ == "__main__":
    main()
