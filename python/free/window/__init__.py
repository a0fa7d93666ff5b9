"""How many teacher rows each sample gets in a round: a fixed number, or what pays most."""

from free.window.auto import AutoWindow
from free.window.rule import Choice, Committed, FixedWindow, Run, WindowRule, Windows

__all__ = ["AutoWindow", "Choice", "Committed", "FixedWindow", "Run", "WindowRule", "Windows"]
