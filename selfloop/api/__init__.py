"""The library: one function for each thing that the command line can do.

Read in this order; `selfloop` itself exports all that is public.

runs.py         `run` and `load` return a `Run`: its rounds, beliefs and rows
recipes.py      the forms of a recipe and of changes to it; `check`
answerer.py     who answers: a recipe, a model alone, or the model of a run
closed_book.py  one round over given questions, for the three below
ask.py          `ask`: a model's answers to questions, with confidences
score.py        `score`: the confidence in answers that exist already
evaluate.py     `evaluate`: a run, a recipe or a model, measured by gold answers
choices.py      multiple choice, which `evaluate` reads by log-likelihood
plan.py         `plan`: how long a recipe takes here, and how much memory
builtin.py      `compare`, `export` and `dataset`, which built-in plugins implement
summary.py      the counts that end a run
run_folders.py  a run's folder by its name

A command parses its arguments, calls one function of these modules and prints the result. Errors
are exceptions of `selfloop.errors`. Nothing here imports `selfloop.cli`.
"""
