"""Where a batch comes from: specs, files, model files, the Python API."""

import collections
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gradflow.errors import BadInputSpec, BatchFileError, NotInputs, TargetFileError, WrongInputs
from gradflow.subject import Loaded, choose_batch, given_batch


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)

    def forward(self, ids, scale=None, *, mask=None):
        return self.table(ids)


class Open(nn.Linear):
    def forward(self, *args, **kwargs):
        return super().forward(args[0])


def loaded(model=None, **more):
    return Loaded(**{"spec": "model.py", "model": model or nn.Linear(4, 2), "family": "file"} | more)


def chosen(target, *specs, seed=0, dtype=None, **more):
    return choose_batch(target, specs=specs, seed=seed, device="cpu", dtype=dtype, **more)


def rows(batch):
    return [(record.name, record.dtype, record.shape) for record in batch.records]


def test_positional_spec():
    """A spec without a name is positional, carries forward's own name in the record, and takes the parameters' dtype."""
    batch = chosen(loaded(nn.Linear(4, 2).double()), "8x4")
    assert rows(batch) == [("input", "float64", (8, 4))]
    assert batch.args[0].dtype == torch.float64 and not batch.kwargs
    assert batch.records[0].source == "--input, drawn at random with seed 0"


def test_named_specs():
    """A spec with a name is a keyword, also where it names the first parameter."""
    batch = chosen(loaded(TwoInputs()), "ids=int64[2,3]", "mask=bool[2]")
    assert set(batch.kwargs) == {"ids", "mask"} and batch.args == ()
    assert batch.kwargs["mask"].dtype == torch.bool


def test_integer_spec_without_high():
    """Integers are bounded by the model's embedding, a mask by 2, and the notes say so."""
    batch = chosen(loaded(TwoInputs()), "int64[50]", "mask=int64[50]")
    assert batch.args[0].max() == 6 and batch.kwargs["mask"].max() == 1
    assert "drawn below 7 (the size of the embedding table)" in batch.notes[0]
    assert "drawn below 2" in batch.notes[1]
    assert "no embedding says otherwise" in chosen(loaded(), "int64[3]").notes[0]


@pytest.mark.parametrize(
    ("specs", "reason"),
    [
        (["idz=3x3"], "no parameter 'idz'"),
        (["3", "3", "3"], "3 positional inputs were given and it takes 2"),
        (["3", "ids=3"], "given both by position and by name"),
        (["mask=3"], "no input is given for ids"),
    ],
)
def test_specs_that_do_not_fit_forward(specs, reason):
    """Specs are checked against forward's signature before anything runs."""
    with pytest.raises(WrongInputs) as caught:
        chosen(loaded(TwoInputs()), *specs)
    assert reason in caught.value.fact
    assert "It takes: ids, scale, mask" in caught.value.remedy


def test_misspelled_keyword_has_a_suggestion():
    """The nearest parameter is named."""
    with pytest.raises(WrongInputs) as caught:
        chosen(loaded(TwoInputs()), "idss=3x3")
    assert "Did you mean ids?" in caught.value.remedy


def test_forward_that_takes_anything():
    """*args and **kwargs accept every spec."""
    assert rows(chosen(loaded(Open(4, 2)), "2x4", "whatever=3"))[1][0] == "whatever"


def test_one_name_twice_and_two_sources():
    """The same name twice, or --input beside --batch, is an error."""
    with pytest.raises(BadInputSpec, match="given twice"):
        chosen(loaded(TwoInputs()), "ids=3", "ids=3")
    with pytest.raises(BadInputSpec, match="--batch gives the inputs already"):
        choose_batch(loaded(), specs=["3"], batch_file="b.pt", seed=0, device="cpu", dtype=None)


def test_batch_does_not_follow_the_global_generator():
    """The seed alone fixes the batch, the global generators are neither read nor moved, and weights do not share its numbers."""
    torch.manual_seed(0)
    target = loaded(nn.Linear(4, 2))
    before = torch.get_rng_state()
    first, second, other = (chosen(target, "3x4", seed=seed).args[0] for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))


def test_cast_to_a_dtype():
    """Floating inputs and targets are cast, integers are not; the values are those of the uncast run."""
    target = loaded(Open(4, 2), inputs=(torch.ones(2, 4), {"ids": torch.ones(2, dtype=torch.int64)}), targets=torch.ones(2))
    batch = chosen(target, dtype=torch.bfloat16)
    assert rows(batch) == [("input[0]", "bfloat16", (2, 4)), ("input[1].ids", "int64", (2,))]
    assert batch.targets.dtype == torch.bfloat16
    assert target.inputs[0].dtype == torch.float32
    drawn, cast = (chosen(loaded(), "3x4", dtype=dtype).args[0] for dtype in (None, torch.bfloat16))
    assert torch.equal(drawn.bfloat16(), cast)


def test_moved_to_a_device():
    """Everything lands on the device."""
    batch = choose_batch(loaded(inputs=[torch.ones(2, 4)], targets={"y": torch.ones(2)}), seed=0, device="meta", dtype=None)
    assert batch.args[0].device.type == batch.targets["y"].device.type == "meta"


Point = collections.namedtuple("Point", "x y")


@dataclass
class Graph:
    nodes: torch.Tensor
    name: str = "g"


@pytest.mark.parametrize(
    ("inputs", "args", "names"),
    [
        (torch.ones(2), 1, ["input[0]"]),
        ((torch.ones(2), torch.ones(3)), 2, ["input[0]", "input[1]"]),
        ([torch.ones(2), 5], 2, ["input[0]"]),
        ({"a": torch.ones(2), "b": [torch.ones(1)]}, 0, ["a", "b[0]"]),
        (Point(torch.ones(1), torch.ones(2)), 1, ["input[0].x", "input[0].y"]),
        ((Graph(torch.ones(3)),), 1, ["input[0].nodes"]),
        (lambda: {"a": torch.ones(2)}, 0, ["a"]),
    ],
    ids=["tensor", "tuple", "list", "dict", "namedtuple", "dataclass", "callable"],
)
def test_given_inputs(inputs, args, names):
    """Tensor, tuple and list are positional, a dict are keywords, a callable makes one of them; tensors inside are listed."""
    batch = given_batch(inputs)
    assert len(batch.args) == args
    assert [record.name for record in batch.records] == names
    assert {record.source for record in batch.records} == {"given"}


@pytest.mark.parametrize("inputs", [3, None, "8x3", object(), {1: torch.ones(1)}, lambda: None], ids=["int", "none", "str", "object", "int-key", "lambda"])
def test_given_something_else(inputs):
    """What is none of these is an error that says what is."""
    with pytest.raises(NotInputs, match="Give a tensor"):
        given_batch(inputs)


def test_rebuilt_containers_keep_their_types():
    """Moving a batch keeps namedtuples, dataclasses and mappings, and leaves the originals alone."""
    inputs = (Point(torch.ones(1), 2), Graph(torch.ones(1)), collections.OrderedDict(a=torch.ones(1)), "text")
    batch = chosen(loaded(Open(4, 2), inputs=inputs), dtype=torch.float64)
    assert [type(value) for value in batch.args] == [type(value) for value in inputs]
    assert batch.args[1].nodes.dtype == torch.float64 and inputs[1].nodes.dtype == torch.float32


def test_tensor_that_is_input_and_target():
    """One tensor in two places stays one tensor."""
    x = torch.ones(2, 4)
    batch = chosen(loaded(inputs=x, targets=x), dtype=torch.float64)
    assert batch.args[0] is batch.targets


def test_model_file_inputs_as_a_function():
    """A function draws under the seed, and leaves the global generators as they were."""
    target = loaded(inputs=lambda: torch.randn(2, 4), targets=lambda: torch.zeros(2))
    before = torch.get_rng_state()
    first, second, other = (chosen(target, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.args[0], second.args[0]) and not torch.equal(first.args[0], other.args[0])
    assert first.records[0].source == "model file" and first.targets.shape == (2,)
    assert torch.equal(before, torch.get_rng_state())


def test_model_file_targets_that_raise():
    """A failing function is the file's fault; one given through the Python API raises as itself."""

    def targets():
        raise KeyError("y")

    with pytest.raises(TargetFileError, match="making its `targets`"):
        chosen(loaded(inputs=torch.ones(1, 4), targets=targets))
    with pytest.raises(KeyError):
        chosen(loaded(inputs=torch.ones(1, 4), targets=targets, family="given"))


def save(path, content):
    if path.suffix == ".npz":
        np.savez(path, **content) if isinstance(content, dict) else np.savez(path, *content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        (save_file if path.suffix == ".safetensors" else torch.save)(content, path)


ONES, IDS = torch.ones(2, 4), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("b.pt", ONES, (1, [], False)),
        ("b.pt", (ONES, ONES), (2, [], False)),
        ("b.pt", {"input": ONES}, (0, ["input"], False)),
        ("b.pt", {"image": ONES}, (1, [], False)),
        ("b.pt", {"x": ONES, "y": IDS}, (1, [], True)),
        ("b.pt", {"inputs": (ONES, ONES), "labels": IDS}, (2, [], True)),
        ("b.pt", {"inputs": {"input": ONES}, "target": IDS}, (0, ["input"], True)),
        ("b.npz", {"input": ONES.numpy()}, (0, ["input"], False)),
        ("b.npz", [ONES.numpy(), ONES.numpy()], (2, [], False)),
        ("b.npy", ONES.numpy(), (1, [], False)),
        ("b.safetensors", {"x": ONES, "labels": IDS}, (1, [], True)),
    ],
)
def test_batch_file(tmp_path, name, content, found):
    """Every format and layout: positional, keyword, a single entry, inputs with targets."""
    path = tmp_path / name
    save(path, content)

    class Takes(nn.Linear):
        def forward(self, input, other=None):
            return super().forward(input)

    batch = chosen(loaded(Takes(4, 2)), batch_file=path)
    assert (len(batch.args), list(batch.kwargs), batch.targets is not None) == found
    assert batch.records[0].source == f"--batch {path}"


def test_batch_file_of_keywords(tmp_path):
    """Names that forward takes are keywords, also where they look like inputs and targets."""

    class Pair(nn.Linear):
        def forward(self, x, y):
            return super().forward(x) + y

    torch.save({"x": ONES, "y": ONES}, tmp_path / "b.pt")
    batch = chosen(loaded(Pair(4, 4)), batch_file=tmp_path / "b.pt")
    assert list(batch.kwargs) == ["x", "y"] and batch.targets is None


def test_batch_file_with_a_name_that_forward_lacks(tmp_path):
    """Other names are an error that lists the right ones."""
    torch.save({"idz": IDS, "scale": ONES, "more": ONES}, tmp_path / "b.pt")
    with pytest.raises(WrongInputs, match="no parameter 'idz'"):
        chosen(loaded(TwoInputs()), batch_file=tmp_path / "b.pt")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemError('unpickled')",)


def test_batch_files_that_cannot_be_read(tmp_path):
    """Missing, a folder, an unknown format, code, rubbish, nothing inside: an error each, and no code is run."""
    torch.save(Bomb(), tmp_path / "bomb.pt")
    np.savez(tmp_path / "object.npz", a=np.array([Bomb()], dtype=object))
    np.savez(tmp_path / "text.npz", a=np.array(["x"]))
    torch.save({}, tmp_path / "empty.pt")
    torch.save(3, tmp_path / "three.pt")
    for name in ("rubbish.pt", "rubbish.npz", "rubbish.safetensors", "data.csv"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 rubbish")
    cases = {
        "no.pt": "no such file",
        ".": "it is a folder",
        "data.csv": "not a format that is read",
        "bomb.pt": "not unpickled",
        "object.npz": "without unpickling",
        "text.npz": "no such dtype",
        "empty.pt": "no tensor",
        "three.pt": "no tensor",
        "rubbish.pt": "it is damaged",
        "rubbish.npz": "numpy cannot read it without",
        "rubbish.safetensors": "damaged",
    }
    for name, reason in cases.items():
        with pytest.raises(BatchFileError, match=reason):
            chosen(loaded(), batch_file=tmp_path / name)
