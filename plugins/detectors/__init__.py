"""Detectors: how likely an answer is true.

Each is a verifier of one module; helpers start with an underscore.
"""
