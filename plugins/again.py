"""`again`: being written."""
