"""The built-in plugins, one module a method.

They register like anybody else's: see `pyproject.toml`, entry points.
"""
