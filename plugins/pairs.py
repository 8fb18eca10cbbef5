"""`pairs`: being written."""
