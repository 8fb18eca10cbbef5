"""`diversity`: being written."""
