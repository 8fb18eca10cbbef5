"""`answerable`: being written."""
