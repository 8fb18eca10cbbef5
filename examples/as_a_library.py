"""selfloop from Python: run a recipe and read what the model came to believe.

    python examples/as_a_library.py [MODEL]

MODEL is a .gguf file, or a name such as smollm2-135m-instruct. Without one a script answers: quick, and no download.
"""

import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from selfloop.runner import run
from selfloop.store import Store

recipe = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
backend = f"backend={{kind: llama_cpp, model: {sys.argv[1]}}}" if sys.argv[1:] else "backend=scripted"

with TemporaryDirectory() as runs:
    folder = run(recipe, (backend, "ask.questions=6", "observers=[]"), Path(runs))
    with closing(Store(folder, write=False)) as store:
        for ended in store.rounds():
            print(f"round {ended.number}: {ended.count('belief')} believed, {ended.count('declined')} declined")
            for belief in ended.beliefs:
                print(f"  {belief.confidence:.2f} {belief.question.text} {belief.answer}")
