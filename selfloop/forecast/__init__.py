"""What a run will take, before it is made.

estimate.py      completions, tokens and time of a recipe
meter.py         what each call of a backend asks for, and how long it takes
prefixes.py      what prompts have in common, which is read once
"""
