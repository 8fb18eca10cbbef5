"""`contrast`: being written."""
