"""`balance`: being written."""
