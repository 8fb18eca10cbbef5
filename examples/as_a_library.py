"""selfloop from Python: run a recipe, read its beliefs, judge them again, ask a question.

    python examples/as_a_library.py [MODEL]

MODEL is a .gguf file, or a name such as smollm2-135m-instruct. Without one a script answers: quick,
and no download.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import selfloop

recipe = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
backend = {"kind": "llama_cpp", "model": sys.argv[1]} if sys.argv[1:] else "scripted"

with TemporaryDirectory() as runs:
    run = selfloop.run(recipe, {"backend": backend, "ask.questions": 6}, runs=runs, quiet=True)
    for ended in run.rounds:
        print(
            f"round {ended.number}: {ended.count('belief')} believed, {ended.count('declined')} "
            "declined"
        )
        for belief in ended.beliefs:
            print(f"  {belief.confidence:.2f} {belief.question.text} {belief.answer}")

    # The stored answers under a stricter threshold: the model is not needed.
    strict = selfloop.rescore(run, {"decide.belief": 0.95}, runs=runs)
    print(f"{len(run.beliefs)} beliefs, {len(strict.beliefs)} of at least 0.95")

    # The model of the run answers a question, with the run's detectors.
    answer = selfloop.ask(run, "What is the capital of France?")
    print(f"{answer.question} {answer.answer}")
