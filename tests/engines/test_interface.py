"""Contracts: what files and calls must look like, and what is said when they do not."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from free.engines.interface import Contract, Profile, TensorSpec

CONTRACT = Contract(
    "toy",
    (
        TensorSpec("x", "float32", ("rows", 2, 3)),
        TensorSpec("t", "int64", ("rows",), 5, 9),
        TensorSpec("scale", "float32", (2,), 1.0, 4.0),
        TensorSpec("own", "bool", ("batch", "rows")),
        TensorSpec("carry", "int64", ("batch",), 0, below=("rows", "batch")),
    ),
    (TensorSpec("eps", "float32", ("rows", 2)), TensorSpec("kept", "bool", ("batch", 4))),
    {"rows": Profile(1, 4, 6), "batch": Profile(2, 2, 3)},
)
SIZES = {"rows": 4, "batch": 2}


def call(**changes: Any) -> dict[str, Tensor]:
    return CONTRACT.sample_inputs(SIZES) | changes


def test_sizes_are_those_of_the_call() -> None:
    assert CONTRACT.sizes(call()) == SIZES
    least = {"rows": 1, "batch": 3}
    assert CONTRACT.sizes(CONTRACT.sample_inputs(least)) == least
    assert CONTRACT.sizes(call(x=torch.zeros(3, 2, 4).transpose(0, 2))) == SIZES


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (call(z=torch.zeros(1)), r"toy must be given \['x', 't', 'scale', 'own', 'carry'\], got"),
        ({"x": torch.zeros(4, 2, 3)}, r"toy must be given .* got \['x'\]"),
        (
            call(x=torch.zeros(4, 2, 3).double()),
            r"must be float32 of shape \[rows, 2, 3\], got flo",
        ),
        (call(x=torch.zeros(4, 2)), r"x of toy must be .* got float32 of \[4, 2\]"),
        (call(t=torch.zeros(5).long()), r"t of toy must be int64 of shape \[rows = 4\], got"),
        (CONTRACT.sample_inputs({"rows": 7, "batch": 2}), "got 7: export with a larger --window"),
        (CONTRACT.sample_inputs({"rows": 6, "batch": 1}), "batch of toy must be .*, got 1$"),
    ],
)
def test_calls_that_do_not_fit(inputs: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CONTRACT.sizes(inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z": ("bool", ())}, "f must be the graph toy with x, t, scale, own, carry, eps, kept, "),
        ({"t": ("float32", (-1,))}, r"t in f must be int64 of shape \['rows'\], .* got float32 of"),
        ({"x": ("float32", (4, 2, 3))}, r"x in f must be .* got float32 of \[4, 2, 3\]"),
        ({"own": ("bool", ("rows", "rows"))}, r"own in f must be bool of shape \['batch', 'rows'"),
    ],
)
def test_files_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    specs = (*CONTRACT.inputs, *CONTRACT.outputs)
    tensors = {spec.name: (spec.dtype, spec.shape) for spec in specs}
    CONTRACT.require_graph("f", {**tensors, "x": ("float32", (-1, 2, 3))})
    with pytest.raises(ValueError, match=message):
        CONTRACT.require_graph("f", {**tensors, **changes})


def test_profiles_ascend_and_have_corners() -> None:
    for sizes in ((0, 1, 1), (2, 1, 3), (1, 4, 3)):
        with pytest.raises(ValueError, match="profile must satisfy 1 <= minimum <= optimum <= max"):
            Profile(*sizes)
    ends = [{"rows": 1, "batch": 2}, {"rows": 4, "batch": 2}, {"rows": 6, "batch": 3}]
    assert CONTRACT.corners() == ends
    assert Contract("fixed", (), (), {"rows": Profile(2, 2, 2)}).corners() == [{"rows": 2}]


def test_sample_inputs_are_in_range_and_repeat() -> None:
    sizes = {"rows": 200, "batch": 300}
    drawn, again = CONTRACT.sample_inputs(sizes, 3), CONTRACT.sample_inputs(sizes, 3)
    other = CONTRACT.sample_inputs(sizes, 4)
    assert drawn["x"].shape == (200, 2, 3)
    assert abs(drawn["x"].std() - 1) < 0.1
    assert set(drawn["t"].tolist()) == {5, 6, 7, 8}
    assert 1 <= drawn["scale"].min() <= drawn["scale"].max() < 4
    assert drawn["own"].dtype is torch.bool
    assert 0.4 < drawn["own"].float().mean() < 0.6
    assert 0 <= drawn["carry"].min() < 50
    assert 450 < drawn["carry"].max() < 500
    for name, value in drawn.items():
        assert torch.equal(again[name], value)
        assert not torch.equal(other[name], value)


EPS = {"name": "eps", "dtype": "int64", "shape": ["rows"], "below": []}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": None}, "contract must have graph, inputs, outputs and axes: TypeError"),
        ({"inputs": [{**EPS, "type": "float32"}]}, "contract must have .*Type"),
        ({"axes": {"rows": {"minimum": 3, "optimum": 2, "maximum": 4}}}, "profile must satisfy"),
        ({"axes": {}}, r"x of toy must have a dtype of .* and axes of \[\], got float32 and"),
        ({"outputs": [{**EPS, "below": ["w"]}]}, r"eps of toy must have .* got int64 and \['rows'"),
        (
            {"outputs": [{**EPS, "dtype": "float16"}]},
            r"dtype of \['float32', .*'bool'\] .* got flo",
        ),
    ],
)
def test_records_are_strict_json_and_checked(changes: dict[str, Any], message: str) -> None:
    record = json.loads(json.dumps(CONTRACT.to_record(), allow_nan=False))
    assert Contract.from_record(record) == CONTRACT
    assert Contract.from_record(record).inputs[0].high == math.inf
    with pytest.raises(ValueError, match=message):
        Contract.from_record(record | changes)
    with pytest.raises(ValueError, match="contract must have"):
        Contract.from_record({})
