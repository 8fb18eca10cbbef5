"""How good answers and decisions are, by gold answers or by other settings.

metrics.py          calibration, ranking and selective prediction, with intervals
gold.py             whether an answer matches the gold answers
evaluate.py         metrics of a run
multiple_choice.py  questions with choices
rescoring.py        decisions of a stored run under other settings
flips.py            revisions that turned right answers wrong, and the reverse
round_figures.py    whether a run of several rounds collapses
"""
