"""Scorers: which questions are worth asking."""
