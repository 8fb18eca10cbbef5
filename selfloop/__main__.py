"""`python -m selfloop`, for launchers that take a module."""

from selfloop.cli import main

main()
