"""The variance network and its files."""

import json
from pathlib import Path

import pytest
import torch

from free.models.sigma import SigmaNet


def test_rows_are_independent_weights() -> None:
    network = SigmaNet(3, 4)
    x, t = torch.randn(5, 3, 8, 8), torch.tensor([0, 10, 500, 999, 999])
    w = network(x, t)
    assert w.shape == (5,)
    assert ((w > 0) & (w < 1)).all()
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(w, alone)
    assert w[3] != w[4]


def test_it_is_kept(tmp_path: Path) -> None:
    network = SigmaNet(2, 4)
    network.save_pretrained(tmp_path / "sigma", {"steps": 3})
    read = SigmaNet.from_pretrained(tmp_path / "sigma")
    x, t = torch.randn(2, 2, 6, 6), torch.tensor([5, 900])
    torch.testing.assert_close(read(x, t), network(x, t), rtol=0, atol=0)
    assert not any(weight.requires_grad for weight in read.parameters())
    config = json.loads((tmp_path / "sigma" / "config.json").read_text())
    assert config["training"] == {"steps": 3}


def test_bad_folders(tmp_path: Path) -> None:
    message = "variance must be a folder of free train-variance, got"
    with pytest.raises(ValueError, match=message):
        SigmaNet.from_pretrained(tmp_path)
    SigmaNet(2, 4).save_pretrained(tmp_path)
    for config in ("{", "[]", '{"kind": "dit"}', '{"kind": "sigma"}',
                   '{"kind": "sigma", "channels": 3, "width": 4}',
                   '{"kind": "sigma", "channels": "2", "width": 4}',
                   '{"kind": "sigma", "channels": 2, "width": 4000}',
                   '{"kind": "sigma", "channels": 2, "width": 9223372036854775808}'):  # fmt: skip
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(ValueError, match=message):
            SigmaNet.from_pretrained(tmp_path)
    SigmaNet(2, 4).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=message):
        SigmaNet.from_pretrained(tmp_path)


def test_bad_sizes_and_states() -> None:
    with pytest.raises(ValueError, match=r"channels must be an integer in 1\.\.4096, got 0"):
        SigmaNet(0)
    with pytest.raises(ValueError, match=r"width must be an integer in 1\.\.4096, got 1.5"):
        SigmaNet(1, 1.5)
    with pytest.raises(ValueError, match=r"x must have shape \[R, 2, H, W\] .* got \[4, 3, 8, 8\]"):
        SigmaNet(2)(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
