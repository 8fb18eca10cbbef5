"""`embedding`: being written."""
