"""The package's version, as installed."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("free-dit")
except PackageNotFoundError:  # imported from a source tree
    __version__ = "0+unknown"
