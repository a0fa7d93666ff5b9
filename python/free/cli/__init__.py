"""The ``free`` command; one module per subcommand."""

from free.cli.app import app

__all__ = ["app"]
