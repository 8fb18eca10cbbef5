"""Sources: where questions come from."""
