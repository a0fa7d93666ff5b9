"""Everything here samples or verifies on a GPU, which takes the CUDA kernels."""

import pytest

from free.ops import build_info


@pytest.fixture(autouse=True)
def _cuda_kernels() -> None:
    if build_info()["cuda"] is None:
        pytest.skip("this build of free has no CUDA kernels")
