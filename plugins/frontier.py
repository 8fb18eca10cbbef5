"""`frontier`: being written."""
