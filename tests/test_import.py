"""What ``import free`` costs and needs."""

import subprocess
import sys


def test_it_takes_little_longer_than_torch() -> None:
    """In processor time, and the least of two: others use the machine too."""
    code = """
import resource
def seconds():
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime
start = seconds()
import torch
middle = seconds()
import free
print(middle - start, seconds() - middle)
"""
    command, runs = [sys.executable, "-c", code], []
    for _ in range(2):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(done.stdout.split())
    torch_alone, free_alone = (min(float(run[part]) for run in runs) for part in (0, 1))
    assert free_alone < 0.5 * torch_alone


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
