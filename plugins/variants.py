"""`variants`: being written."""
