"""What a run will take, before it is made.

estimate.py      completions, tokens and time of a recipe
meter.py         how fast a backend is
"""
