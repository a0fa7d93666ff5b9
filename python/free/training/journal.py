"""What is written down and shown while a run lasts: losses, speed, evaluations."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from free.devices import peak
from free.files import shown
from free.training.config import TrainConfig
from free.training.evaluations import FIGURE, Evaluate, Evaluations, scalars
from free.training.log import LossMeans, RunLog, draw_losses, read_log
from free.training.parallel import Ranks


def check_stored(stored: dict[str, Any]) -> None:
    """Raise a KeyError, TypeError or ValueError unless this is what :meth:`Journal.state` returned.

    What is in it is used at different times, until the end of a run.
    """
    names, values = stored["losses"]["names"], stored["losses"]["values"]
    of_names = all(isinstance(name, str) for name in names) and isinstance(values, Tensor)
    if not of_names or (values.numel() and values.shape[1:] != (len(names),)):
        raise ValueError("the journal's losses must have a column for each name")
    if not isinstance(stored["seconds"], (int, float)):
        raise TypeError(f"the journal's seconds must be a number, got {shown(stored['seconds'])}")
    for result in stored["evaluations"]:
        if type(result["step"]) is not int or not isinstance(result[FIGURE], (int, float)):
            raise TypeError(f"an evaluation must have step and {FIGURE}, got {shown(result)}")
    json.dumps(stored["evaluations"])  # they are written as such


class Journal:
    """Losses, speed and evaluations of a run; the first rank writes and shows, all take part.

    Parameters
    ----------
    images : int
        Of an epoch.
    step : int
        Where the run is.
    stored : dict, optional
        What :meth:`state` returned, of the run that is continued.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        ranks: Ranks,
        *,
        images: int,
        step: int,
        stored: dict[str, Any] | None = None,
        tensorboard: bool = False,
        progress: bool = False,
    ) -> None:
        self._folder, self._config, self._ranks = folder, config, ranks
        self._epochs_a_step = config.batch_size / images
        self._losses = LossMeans(ranks, stored["losses"] if stored else None)
        self._evaluations = Evaluations(folder, stored["evaluations"] if stored else [])
        self._begun = time.monotonic() - (stored["seconds"] if stored else 0.0)
        self._line = (step, self.seconds)
        self._closing = ExitStack()
        self._log = None
        if ranks.first:
            self._log = self._closing.enter_context(closing(RunLog(folder, step, tensorboard)))
            self._evaluations.publish()  # what a killed process had begun
        self._bar = self._closing.enter_context(
            tqdm(
                total=config.steps,
                initial=step,
                unit="batch",
                disable=not (progress and ranks.first),
                mininterval=0.2 if sys.stderr.isatty() else 30.0,  # a file is not to be filled
                dynamic_ncols=True,
            )
        )

    @property
    def seconds(self) -> float:
        """Time spent on training, evaluations left out."""
        return time.monotonic() - self._begun

    def step(self, parts: list[dict[str, Tensor]], length: Tensor) -> None:
        """Note a step: the losses of its passes and the length of its gradients."""
        self._losses.add(parts, length)
        self._bar.update()

    def line(self, step: int) -> None:
        """Write a line of the log."""
        means, seconds = self._losses.take(step), self.seconds
        images = self._config.batch_size * (step - self._line[0])
        speed = images / max(seconds - self._line[1], 1e-9)
        self._line = (step, seconds)
        if self._log is None:
            return
        columns = {
            "epoch": step * self._epochs_a_step,
            "seconds": seconds,
            "images_per_second": speed,
            "learning_rate": self._config.rate(step - 1),
        }
        self._log.write(step, {**columns, **means})
        shown = [f"{name} {value:.4g}" for name, value in means.items()]
        memory = peak(self._ranks.device)
        shown += [f"{speed:,.0f} images/s", *([f"{memory / 2**20:,.0f} MiB"] if memory else [])]
        self._bar.set_postfix_str(", ".join(shown), refresh=False)  # at the bar's next turn

    def evaluation(
        self, step: int, evaluate: Evaluate, network: Any, settings: dict[str, Any]
    ) -> None:
        """Evaluate a network, and keep it if it is the best; all ranks must ask.

        A checkpoint and then :meth:`publish` must follow. The network has
        ``save_pretrained(folder, training=)``; the settings of the training are kept with it.
        """
        self._losses.gather(step)  # a network of NaN is not worth it
        before = time.monotonic()
        epoch = round(step * self._epochs_a_step, 4)
        result = {"step": step, "epoch": epoch, **evaluate(network, self._ranks)}
        result["seconds"] = time.monotonic() - before
        self._begun += result["seconds"]
        if self._log is None:
            self._evaluations.results.append(result)
            return
        training = {**settings, "evaluation": result}
        self._evaluations.add(result, partial(network.save_pretrained, training=training))
        self._log.write(step, scalars(result), "evaluation")
        draw_losses(self._folder)
        self._bar.write(
            f"step {step}: parallel efficiency {result['parallel_efficiency']:.2f}, "
            f"{result['seconds']:.0f} s",
            file=sys.stderr,
        )

    def tell(self, text: str) -> None:
        """Show a line above the progress bar, where there is one."""
        if not self._bar.disable:
            self._bar.write(text, file=sys.stderr)

    def evaluated(self, step: int) -> bool:
        """Whether an evaluation of this step is known."""
        return any(result["step"] == step for result in self._evaluations.results)

    def publish(self) -> None:
        """Show what the checkpoint knows of the evaluations."""
        if self._log is not None:
            self._evaluations.publish()

    def state(self, step: int) -> dict[str, Any]:
        """For a checkpoint; all ranks must ask."""
        return {
            "losses": self._losses.state(step),
            "evaluations": self._evaluations.results,
            "seconds": self.seconds,
        }

    def summary(self) -> dict[str, Any]:
        """Seconds, losses of the log's last line and the best evaluation, on the first rank; and
        the picture of the losses.
        """
        lines = read_log(self._folder) if self._log is not None else []
        if lines:
            draw_losses(self._folder)
        # The line has the rate of its step too, which is no setting of the run.
        last = {name: lines[-1][name] for name in self._losses.names} if lines else {}
        best = self._evaluations.best
        return {
            **last,
            "seconds": round(self.seconds, 1),
            **({} if best is None else {"best": scalars(best)}),
        }

    def close(self) -> None:
        """Finish the files and the bar."""
        self._closing.close()
