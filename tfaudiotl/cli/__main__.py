"""``python -m tfaudiotl.cli``."""

from tfaudiotl.cli import app

app()
