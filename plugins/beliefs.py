"""`beliefs`: being written."""
