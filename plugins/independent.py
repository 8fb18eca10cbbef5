"""`independent`: being written."""
