"""What ``import free`` costs and needs."""

import subprocess
import sys


def test_it_takes_little_longer_than_torch() -> None:
    """In processor time: others use the machine too."""
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
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    torch_alone, free_alone = map(float, done.stdout.split())
    assert free_alone < 0.5 * torch_alone


def test_optional_libraries_are_not_needed_nor_a_second_openmp() -> None:
    """Neither for the import nor for loading, sampling or drawing.

    Two runtimes of OpenMP would each start threads, and wait for each other's.
    """
    code = """
import sys
OPTIONAL = ("diffusers", "huggingface_hub", "transformers", "accelerate", "onnx", "onnxruntime",
            "onnxscript", "tensorrt", "mlxtend", "matplotlib", "scipy")
import free, free.cli
assert not sys.modules.keys() & set(OPTIONAL)
sys.modules |= dict.fromkeys(OPTIONAL)
teacher, drafter = free.load_pretrained("mnist")
sampler = free.SpeculativeSampler(teacher, drafter, free.Schedule.ddpm(4), **drafter.sampling)
assert sampler.sample([1], seed=0).samples.shape == (1, 1, 28, 28)
maps = open("/proc/self/maps").read().split()
assert len({p for p in maps if "libgomp" in p or "libomp" in p or "libiomp" in p}) <= 1
assert not hasattr(free, "Pipeline")
for name in ("FreePipeline", "enable", "summary"):
    try:
        getattr(free, name)
    except ImportError as error:
        assert f"free.{name} needs diffusers: pip install 'free-dit[diffusers]'" in str(error)
    else:
        raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
