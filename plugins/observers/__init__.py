"""Observers: they show or write down the events of a run."""
