"""Tuners: they train the model on what a run found."""
