"""TensorRT-RTX engines of the embedded model: sizes and build times, by GPU and precision.

    python benchmarks/tensorrt.py --json benchmarks/results/tensorrt.json

No GPU is needed: TensorRT-RTX builds for a named one. Seconds are those of parsing, building and
writing; of the repetitions the median, or on a machine too busy for that the least. Exporting to
ONNX comes before.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from free import DiT, FeatureDrafter, load_pretrained
from free.bench.timing import timed
from free.cli.options import parse_sweeps
from free.engines.tensorrt import load_tensorrt
from free.export.package import export_model
from free.export.tensorrt import build_engine
from free.files import write_json
from free.machine import machine

MB = 1e6


def measure(
    folder: Path, model: tuple[DiT, FeatureDrafter], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """One entry for each graph, precision and target."""
    results = []
    for precision in arguments.precisions:
        out = folder / precision
        manifest = export_model(
            *model,
            out,
            arguments.window,
            parse_sweeps(arguments.sweeps),
            arguments.max_batch,
            precision,
            guidance=(True,),
        )
        onnx = sum(path.stat().st_size for path in out.iterdir())
        print(f"{precision}: {len(manifest.graphs)} graphs of ONNX, {onnx / MB:.1f} MB", flush=True)
        for name, graph in manifest.graphs.items():
            paths = {target: out / f"{target}.engine" for target in arguments.targets}
            timings = timed(
                {
                    target: partial(
                        build_engine, out / graph.file, graph.contract, target=target, path=path
                    )
                    for target, path in paths.items()
                },
                arguments.repeats,
                warmup=0,
            )
            for target, timing in timings.items():
                size = paths[target].stat().st_size
                seconds = timing.median if timing.clean else timing.minimum
                print(
                    f"  {name:16s}{target:6s}{size / MB:8.1f} MB"
                    f"{seconds:8.2f} s{'' if timing.clean else ' DIRTY'}",
                    flush=True,
                )
                results.append(
                    {
                        "graph": name,
                        "precision": precision,
                        "target": target,
                        "bytes": size,
                        "seconds": seconds,
                        "timing": timing._asdict(),
                    }
                )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "bf16"])
    parser.add_argument("--targets", nargs="+", default=["sm89", "sm120"])
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--sweeps", default="1", help="or autoregression")
    parser.add_argument("--max-batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    teacher, drafter = load_pretrained("mnist")
    assert isinstance(drafter, FeatureDrafter)
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(Path(scratch), (teacher, drafter), arguments)
    for precision in arguments.precisions:
        for target in arguments.targets:
            of = [r for r in results if (r["precision"], r["target"]) == (precision, target)]
            size = sum(r["bytes"] for r in of) / MB
            seconds = sum(r["seconds"] for r in of)
            print(f"all of {precision} for {target}: {size:.1f} MB, {seconds:.1f} s")
    if arguments.json:
        version = load_tensorrt("tensorrt-rtx").__version__
        write_json(
            arguments.json,
            {
                "machine": {**machine(), "tensorrt-rtx": version},
                "arguments": vars(arguments),
                "results": results,
            },
        )


if __name__ == "__main__":
    main()
