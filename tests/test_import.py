"""What ``import free`` costs and needs."""

import resource
import subprocess
import sys


def _user_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-c", code], check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def test_it_takes_little_longer_than_torch() -> None:
    """In turns, and the least of several, where others use the machine too."""
    torch_alone = with_free = float("inf")
    for trial in range(5):
        with_free = min(with_free, _user_seconds("import free"))
        torch_alone = min(torch_alone, _user_seconds("import torch"))
        if trial and with_free < 1.5 * torch_alone:
            return
    raise AssertionError(f"import free takes {with_free} s, import torch {torch_alone} s")


def test_optional_libraries_are_not_needed() -> None:
    """Neither for the import nor for loading, sampling or drawing."""
    code = """
import sys
for name in ("diffusers", "huggingface_hub", "transformers", "accelerate", "onnx", "onnxruntime",
             "onnxscript", "tensorrt", "mlxtend", "matplotlib", "scipy"):
    sys.modules[name] = None
import free, free.cli
teacher, drafter = free.load_pretrained("mnist")
sampler = free.SpeculativeSampler(teacher, drafter, free.Schedule.ddpm(4), **drafter.sampling)
assert sampler.sample([1], seed=0).samples.shape == (1, 1, 28, 28)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
