"""Text from models and files, as data.

display.py       text made safe for a terminal
answers/         whether two answers are the same, and whether one declines
units.py         times, sizes and counts as people read them
nonanswers.py    texts that are no answers
english/         the rules of English questions
gist.py          which questions ask for the same
patterns.py      regular expressions that are compiled at their first use
thoughts.py      the thinking that some models print before they answer
"""
