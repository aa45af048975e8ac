"""The `lcmae` command: one file a command, imported when it is given."""

from lcmae_core.cli.main import COMMANDS, Command, main, parse

__all__ = ["COMMANDS", "Command", "main", "parse"]
