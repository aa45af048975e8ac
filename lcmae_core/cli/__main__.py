"""`python -m lcmae_core.cli` is `lcmae`."""

from lcmae_core.cli.main import command

command()
