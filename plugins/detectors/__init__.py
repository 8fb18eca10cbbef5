"""Detectors: they say how likely an answer is to be true.

Each module offers a detector. Those with an underscore are helpers, in reading order:

_claims.py      the evidence in a claim, and detectors that need nothing else
_reading.py     detectors that let the model read texts
_meanings.py    which samples mean the same
_similarity.py  how similar two texts are by their words
_entailment.py  a classifier for natural language inference
_state.py       files that a detector keeps beside the run

To add a detector, write three files: a module here, its test, and its page docs/detectors/NAME.md.
"""
