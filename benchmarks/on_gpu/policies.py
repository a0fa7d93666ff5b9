"""Both policies of examples/policy, one chunk at a time: plain against speculated, graphs on both.

Steps a round are those of trained networks only: with random weights a row says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from free.bench.timing import timed
from on_gpu.bench import Bench

WINDOWS = (8, 16, 32)
REPEATS = 30
#: The example is no part of the package; it lies beside this folder.
_ROOT = Path(__file__).resolve().parents[2]


def run(bench: Bench, record: dict[str, Any]) -> None:
    """Fill ``rows``: seconds a chunk, and the speed-up over the plain sampler."""
    sys.path.append(str(_ROOT))
    from examples.policy.networks import PolicyConfig, build, load
    from examples.policy.train import CONFIGS

    record |= {"unit": "seconds a chunk", "rows": []}
    for name, config in CONFIGS.items():
        if not bench.allows(name):
            continue
        with bench.attempt(name):
            path = Path(bench.options.policies) / f"{name}.safetensors"
            trained = path.is_file() and not bench.small
            small = PolicyConfig(config.kind, width=16, depth=1, horizon=4, execute=2, steps=4)
            network = load(path) if trained else build(small if bench.small else config).eval()
            rows = _rows(bench, network.to(bench.device))
            record["rows"] += [{"policy": name, "trained": trained, **row} for row in rows]
            _print(name, rows)


def _rows(bench: Bench, network: Any) -> list[dict[str, Any]]:
    """The samplers of one network, in turn, at the mean observation of its training."""
    from examples.policy.act import Policy

    clock, config = bench.clock(), network.config
    seen = network.mean.expand(1, config.history, -1).contiguous()
    windows = (None, *((2,) if bench.small else WINDOWS))
    policies = {window: Policy(network, config, window=window) for window in windows}
    seeds = dict.fromkeys(policies, 0)

    def chunk(window: int | None) -> Callable[[], None]:
        def draw() -> None:
            seeds[window] += 1
            policies[window].plan(seen, [seeds[window]])
            clock.synchronize()

        return draw

    calls = {str(window or "plain"): chunk(window) for window in policies}
    timings = timed(calls, 2 if bench.small else REPEATS, attempts=2)
    rows = []
    for window, policy in policies.items():
        timing = timings[str(window or "plain")]
        assert policy.report is not None
        rows.append(
            {
                "window": window or 1,
                **timing._asdict(),
                "steps_a_round": policy.report.parallel_efficiency,
                "execution": policy.report.execution,
                "speedup": timings["plain"].median / timing.median,
            }
        )
    return rows


def _print(name: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"{name:<14}W = {row['window']:<4}{1e3 * row['median']:9.2f} ms{row['speedup']:8.2f} x"
            f"{row['steps_a_round']:8.1f} steps a round  {row['execution'].partition(':')[0]}",
            flush=True,
        )
