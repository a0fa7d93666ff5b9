"""Calls of the ops and of their bindings at random, under sanitizers: ``make fuzz``.

Half of the calls are valid and compared with the twin where that adds up in the same order; the
others are not valid. Each depends on the seed and its number alone. A sanitizer ends the process,
so the calls are made by a child, which writes down the number of each before it is made.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType

#: Leaks are Python's own affair, and stacks are short without its frames.
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "OMP_NUM_THREADS": "1",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz FUZZ_ARGS=...", description=__doc__)
    parser.add_argument("--build", type=Path, required=True, help="folder of the sanitizer build")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this call only")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run(options)
        return 0
    print(f"seed {options.seed}", flush=True)
    libraries = [
        subprocess.check_output(["g++", f"-print-file-name=lib{name}.so"], text=True).strip()
        for name in ("asan", "ubsan", "stdc++")
    ]
    command = [sys.executable, "-m", "tests.fuzz", *sys.argv[1:], "--child"]
    environment = {**os.environ, **ENVIRONMENT, "LD_PRELOAD": ":".join(libraries)}
    status = subprocess.run(command, env=environment, check=False).returncode
    if status:
        last = number_file(options.build)
        case = last.read_text(encoding="ascii") if last.exists() else "none"
        print(
            f"failed with status {status} at case {case} of seed {options.seed}; again by\n"
            f"  make fuzz FUZZ_ARGS='--seed {options.seed} --case {case}'"
        )
    return int(status != 0)


def number_file(build: Path) -> Path:
    """Where the number of the call that is being made is written."""
    return build / "case"


def load(build: Path) -> ModuleType:
    """The compiled core of that build, in the place of the installed one."""
    import torch  # noqa: F401  before it, so that one OpenMP runtime serves both

    (path,) = build.glob("_C.*.so")
    spec = importlib.util.spec_from_file_location("free.ops._C", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["free.ops._C"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(options: argparse.Namespace) -> None:
    """Make calls until the time is over."""
    core = load(options.build)
    import torch

    from free.ops import contract

    assert contract._C is core
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of torch, about what is made of tensors
    end, done = time.monotonic() + options.seconds, [0, 0]
    number = number_file(options.build).open("w", encoding="ascii")
    case = options.case or 0
    while time.monotonic() < end:
        number.seek(0)
        number.write(str(case))
        number.flush()
        done[one(random.Random(f"{options.seed}:{case}"))] += 1
        case += 1
        if options.case is not None:
            break
    print(f"{done[0]} calls of ops, {done[1]} of bindings, no fault")


def one(rng: random.Random) -> bool:
    """Make a call; whether it was not a valid one."""
    from free import ops, reference
    from tests.fuzz.draw import draw
    from tests.fuzz.spoil import call, spoiled

    if rng.random() < 0.5:
        call(rng, spoiled(rng))
        return True
    from tests.ops.examples import Example
    from tests.ops.test_operator import alike, compared

    case = draw(rng)
    example = Example(case.name, case.given)
    actual = compared(example, example.call(getattr(ops, case.name)))
    if case.comparable:
        expected = compared(example, example.call(getattr(reference, case.name)))
        alike(actual, expected, 1e-5)
    return False


if __name__ == "__main__":
    sys.exit(main())
