"""`python -m selfloop.cli`, for a checkout that is not installed."""

from selfloop.cli import main

main()
