"""The command line: parses, calls the library, prints. TensorFlow loads only when a command runs."""

from tfaudiotl.cli.console import app

# Importing a module adds its commands; --help lists them in this order.
from tfaudiotl.cli import train, inspect, predict, export, embed
