"""Rules for windows that only tests have."""

import numpy as np

from free.window import Choice, Committed, FixedWindow, Run, Windows
from free.window.rule import Integers


class Erratic:
    """Widths that change from transition to transition for no reason, of each sample by itself; so
    that most rounds have windows of several lengths.
    """

    learns = False

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._fixed: Windows | None = None

    def begin(self, run: Run) -> Windows:
        self._fixed = FixedWindow(self.largest).begin(run)
        return self

    def choose(self, k: Integers, known: Integers | None) -> Choice:
        assert self._fixed is not None
        choice = self._fixed.choose(k, known)
        lengths = np.minimum(choice.lengths, 1 + (5 * k + 3) % self.largest)
        return choice._replace(lengths=lengths)

    def made(self, committed: Committed) -> None:
        pass
