"""`self_prompting`: being written."""
