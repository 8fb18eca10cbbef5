"""Text from models and files, as data.

display.py       text made safe for a terminal
answers/         whether two answers are the same, and whether one declines
units.py         times, sizes and counts as people read them
nonanswers.py    texts that are no answers
thoughts.py      the thinking that some models print before they answer
"""
