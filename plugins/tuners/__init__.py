"""Tuners: they train the model on the beliefs and the declined questions of a run."""
