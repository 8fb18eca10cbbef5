"""Critics: they argue against a draft, and ask for a revision."""
