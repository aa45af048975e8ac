"""The `lcmae` command: one file a command, imported when it is given."""

from lcmae_core.cli.main import COMMANDS, Command, command, main, parse

__all__ = ["COMMANDS", "Command", "command", "main", "parse"]
