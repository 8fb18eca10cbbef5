"""Commands that come as plugins."""
