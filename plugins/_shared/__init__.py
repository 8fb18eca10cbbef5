"""Helpers that components of several kinds use. None of them registers anything."""
