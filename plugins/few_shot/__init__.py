"""Few-shot selectors: the examples that are shown before a question."""
