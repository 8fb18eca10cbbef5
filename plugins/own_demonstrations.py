"""`own_demonstrations`: being written."""
