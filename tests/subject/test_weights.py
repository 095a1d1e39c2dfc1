"""--weights FILE."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from gradflow.errors import WeightsError
from gradflow.subject import load, weights

NET = "from torch import nn\nmodel = lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))"
TIED = """
from torch import nn
def model():
    net = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3, bias=False))
    net[1].weight = net[0].weight
    return net
"""


def state():
    return {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(1, 3), "1.bias": torch.ones(1)}


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "safetensors"])
def test_matching_weights(write, tmp_path, suffix):
    """Every format loads into the model, and there is nothing to note."""
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(state(), path)
    loaded = load(write(NET), weights=path)
    assert all(torch.equal(p, torch.ones_like(p)) for p in loaded.model.parameters())
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ({"state_dict": state(), "epoch": 3}, "read from its entry 'state_dict'"),
        ({"model": state()}, "read from its entry 'model'"),
        ({f"module.{k}": v for k, v in state().items()}, "the prefix 'module.' was removed"),
        ({k: v for k, v in state().items() if k[0] == "0"}, "2 keys of the model are not in the file: 1.weight, 1.bias"),
        (state() | {f"more.{i}": torch.ones(1) for i in range(9)}, "9 keys of the file are not in the model: more.0, more.1, more.2, more.3, more.4, …"),
    ],
    ids=["state_dict", "model", "prefix", "missing", "unexpected"],
)
def test_weights_that_match_in_part(write, tmp_path, content, note):
    """Wrappers and prefixes are removed, missing and unexpected keys counted; the notes say so."""
    torch.save(content, tmp_path / "w.pt")
    loaded = load(write(NET), weights=tmp_path / "w.pt")
    assert any(note in found for found in loaded.notes)
    assert torch.equal(loaded.model[0].weight, torch.ones(3, 2))


def test_tied_weight_stored_once(write, tmp_path):
    """A head that shares its tensor with the embedding is not missing."""
    torch.save({"0.weight": torch.ones(3, 2)}, tmp_path / "w.pt")
    assert load(write(TIED), weights=tmp_path / "w.pt").notes == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (state() | {"1.weight": torch.ones(2, 3)}, "1 of its tensors have another shape"),
        ({"other": torch.ones(1)}, "none of its keys is in the model"),
        (torch.ones(3), "holds a Tensor, not a state dict"),
        ({}, "not a state dict"),
        ({"epoch": 3}, "not a state dict"),
    ],
    ids=["shape", "no-match", "tensor", "empty", "no-tensors"],
)
def test_weights_that_do_not_fit(write, tmp_path, content, reason):
    """Weights of another model are an error, not a note."""
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=reason):
        load(write(NET), weights=tmp_path / "w.pt")


def test_shape_mismatches_are_listed(write, tmp_path):
    """Both shapes of each tensor stand in the detail."""
    torch.save(state() | {"1.weight": torch.ones(2, 3)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError) as caught:
        load(write(NET), weights=tmp_path / "w.pt")
    assert caught.value.detail == "1.weight: [2, 3] in the file, [1, 3] in the model"


class Bomb:
    """Unpickling it would fail the test run."""

    def __reduce__(self):
        return exec, ("raise SystemError('unpickled')",)


def test_pickle_with_code(write, tmp_path):
    """A file that holds more than tensors is refused, not run, and the remedy says how to save it."""
    torch.save(Bomb(), tmp_path / "w.pt")
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Bomb()))
    for name in ("w.pt", "plain.bin"):
        with pytest.raises(WeightsError, match=r"not unpickled|damaged") as caught:
            load(write(NET), weights=tmp_path / name)
        assert "state_dict()" in caught.value.remedy


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_file(write, tmp_path, name):
    """Rubbish is an error of its own, in either format."""
    (tmp_path / name).write_bytes(b"PK\x03\x04 rubbish")
    with pytest.raises(WeightsError):
        load(write(NET), weights=tmp_path / name)


def test_weights_that_are_not_there(write, tmp_path):
    """The path is checked before any code of the user runs."""
    write("raise RuntimeError('ran')")
    for path, reason in ((tmp_path / "no.pt", "no such file"), (tmp_path, "not a file"), (tmp_path / "model.py", "not a format")):
        with pytest.raises(WeightsError, match=reason):
            load("model.py", weights=path)


def test_lazy_module_takes_weights(tmp_path):
    """A lazy module has no shape to compare, and learns it from the file."""
    torch.save({"weight": torch.ones(1, 4), "bias": torch.ones(1)}, tmp_path / "w.pt")
    model = torch.nn.LazyLinear(1)
    assert weights.load_weights(model, tmp_path / "w.pt") == ()
    assert model.weight.shape == (1, 4)
