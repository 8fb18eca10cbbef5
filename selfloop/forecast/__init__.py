"""Forecasts time, tokens and memory of a run.

estimate.py      completions, tokens and time of a recipe
meter.py         the work and the time of each call of a backend
prefixes.py      the common beginnings of prompts, which are read once
"""
