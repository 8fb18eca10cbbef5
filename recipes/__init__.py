"""The recipes that come with selfloop; a package, so that they are installed with it."""
