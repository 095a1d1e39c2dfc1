"""Models that torchvision, timm and transformers name."""

import importlib
import json

import pytest
import torch

from gradflow.errors import ArgumentError, BrokenExtra, MissingExtra, NoInput, TargetFileError, UnknownTarget, UntrustedCode
from gradflow.subject import Loaded, choose_batch, choose_loss, families, load

GPT2 = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 1}
VIT = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
BERT = VIT | {"vocab_size": 50}
BART = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 50}
BART |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}


def batch_of(loaded: Loaded):
    return choose_batch(loaded, seed=0, device="cpu", dtype=None)


@pytest.mark.parametrize(
    ("target", "arguments", "cls", "shapes", "loss"),
    [
        ("hf:gpt2", GPT2, "GPT2LMHeadModel", {"input_ids": (2, 128), "labels": (2, 128)}, "model"),
        ("hf:gpt2", GPT2 | {"n_positions": 9}, "GPT2LMHeadModel", {"input_ids": (2, 9), "labels": (2, 9)}, "model"),
        ("hf:bert", BERT, "BertForMaskedLM", {"input_ids": (2, 128), "labels": (2, 128)}, "model"),
        ("hf:roberta", BERT | {"max_position_embeddings": 16}, "RobertaForMaskedLM", {"input_ids": (2, 14), "labels": (2, 14)}, "model"),
        ("hf:bart", BART | SPECIAL, "BartForConditionalGeneration", {"input_ids": (2, 128), "decoder_input_ids": (2, 128), "labels": (2, 128)}, "model"),
        (
            "hf:whisper",
            BART | SPECIAL | {"max_source_positions": 16, "max_target_positions": 8},
            "WhisperForConditionalGeneration",
            {"input_features": (2, 80, 32), "decoder_input_ids": (2, 8), "labels": (2, 8)},
            "model",
        ),
        ("hf:vit", VIT | {"image_size": 32}, "ViTForImageClassification", {"pixel_values": (2, 3, 32, 32), "labels": (2,)}, "model"),
        ("hf:vit", VIT | {"image_size": 32, "num_labels": 1}, "ViTForImageClassification", {"pixel_values": (2, 3, 32, 32), "labels": (2,)}, "model"),
        (
            "hf:wav2vec2",
            BERT | {"num_conv_pos_embedding_groups": 4, "conv_dim": (16,) * 7, "num_feat_extract_layers": 7},
            "Wav2Vec2ForSequenceClassification",
            {"input_values": (2, 16000), "labels": (2,)},
            "model",
        ),
        ("torchvision:squeezenet1_1", {"num_classes": 3}, "SqueezeNet", {"x": (4, 3, 224, 224)}, "probe"),
        ("torchvision:vit_b_32", {"image_size": 32, "num_classes": 3}, "VisionTransformer", {"x": (4, 3, 32, 32)}, "probe"),
        ("timm:resnet10t", {"in_chans": 1}, "ResNet", {"x": (4, 1, 176, 176)}, "probe"),
        ("timm:vit_tiny_patch16_224", {"img_size": 64, "depth": 1}, "VisionTransformer", {"x": (4, 3, 64, 64)}, "probe"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_family_model_runs_on_what_is_inferred(target, arguments, cls, shapes, loss):
    """A named model is built with random weights, and the inferred inputs pass through it to a gradient."""
    loaded = load(target, arguments=arguments)
    batch = batch_of(loaded)
    output = loaded.model(*batch.args, **batch.kwargs)
    objective = choose_loss(loss=None, targets=None, model=loaded.model, seed=0)
    roots = objective(output)
    torch.autograd.backward(roots.tensors, roots.cotangents)
    assert type(loaded.model).__name__ == cls
    assert {record.name: record.shape for record in batch.records} == shapes
    assert objective.name == loss
    assert "drawn at random with seed 0" in batch.records[0].source


def test_transformers_model_in_a_file(write):
    """A model file that returns a library's model is fed as the library's models are."""
    write("from transformers import GPT2Config, GPT2Model\nmodel = GPT2Model(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50))")
    batch = batch_of(load("model.py"))
    assert [(r.name, r.dtype) for r in batch.records] == [("input_ids", "int64")]
    assert int(batch.kwargs["input_ids"].max()) < 50


def test_folder_with_a_config(tmp_path):
    """hf:DIR builds the class that the config names, and arguments override its fields."""
    config = GPT2 | {"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load(f"hf:{tmp_path}", arguments={"n_layer": 2, "pad_token_id": 0})
    assert type(loaded.model).__name__ == "GPT2ForSequenceClassification"
    assert len(loaded.model.transformer.h) == 2
    assert "random weights" in loaded.notes[0]
    assert {r.name for r in batch_of(loaded).records} == {"input_ids", "labels"}


def test_folder_that_brings_code(tmp_path):
    """A config with Python code of its own needs --trust, and nobody is asked on stdin."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}))
    with pytest.raises(UntrustedCode) as caught:
        load(f"hf:{tmp_path}")
    assert "--trust" in caught.value.remedy


def test_folder_without_or_with_a_broken_config(tmp_path):
    """A folder that transformers cannot read says what is missing."""
    with pytest.raises(UnknownTarget, match=r"no config\.json"):
        load(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TargetFileError, match="reading its config"):
        load(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("target", "near"),
    [("torchvision:resnet19", "torchvision:resnet18"), ("timm:resnet19", "timm:resnet18"), ("hf:gpt3", "hf:gpt2")],
)
def test_model_that_the_library_does_not_have(target, near):
    """A wrong name gets the nearest right ones."""
    with pytest.raises(UnknownTarget) as caught:
        load(target)
    assert near in caught.value.remedy


@pytest.mark.parametrize(
    ("target", "argument", "near"),
    [("hf:gpt2", "n_layers", "n_layer"), ("torchvision:resnet18", "num_class", "num_classes"), ("timm:resnet18", "num_class", "num_classes")],
)
def test_misspelled_argument_of_a_family(target, argument, near):
    """An unknown config field or keyword is an error that names the nearest right one, also where the library would swallow it."""
    with pytest.raises(ArgumentError, match=rf"did you mean {near}\?"):
        load(target, arguments={argument: 2})


def test_config_value_of_the_wrong_type():
    """What transformers refuses in a config is told as such."""
    with pytest.raises(TargetFileError, match="n_layer"):
        load("hf:gpt2", arguments={"n_layer": "many"})


def test_library_that_is_not_installed(monkeypatch):
    """A missing extra is named with the command that installs it."""

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(families, "import_module", missing)
    for target, extra in (("timm:resnet18", "timm"), ("hf:gpt2", "hf")):
        with pytest.raises(MissingExtra) as caught:
            load(target)
        assert f"extra [{extra}]" in caught.value.remedy and "pip install" in caught.value.remedy


def test_library_that_fails_to_import(monkeypatch):
    """An installed library whose import fails is not called missing; the root cause is shown."""

    def broken(name):
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise ModuleNotFoundError("Could not import module 'X'", name="X") from error

    monkeypatch.setattr(families, "import_module", broken)
    with pytest.raises(BrokenExtra, match="torchvision::nms does not exist"):
        load("timm:resnet18")


def test_library_that_fails_lazily(monkeypatch):
    """transformers imports on demand: a failure while its class is looked up is the library's, not the user's."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")

    class Lazy(dict):
        def __contains__(self, key):
            raise ModuleNotFoundError("Could not import module 'GPT2LMHeadModel'")

    monkeypatch.setattr(auto, "MODEL_FOR_CAUSAL_LM_MAPPING", Lazy())
    with pytest.raises(BrokenExtra, match="GPT2LMHeadModel"):
        load("hf:gpt2", arguments=GPT2)


def test_models_that_need_more_than_one_image():
    """A detector and a flow model are not fed by guess; the error says what they need."""
    with pytest.raises(NoInput, match="detector"):
        batch_of(load("torchvision:ssdlite320_mobilenet_v3_large"))
    with pytest.raises(NoInput, match="image1, image2"):
        batch_of(load("torchvision:raft_small"))


TINY_PART = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}


def test_a_part_of_a_model_that_no_automatic_class_has():
    """The text tower of a two-tower model, named by its own type, is built by the class of its own file."""
    loaded = load("hf:aimv2_text_model", arguments=TINY_PART)
    assert type(loaded.model).__name__ == "Aimv2TextModel"
    assert [(r.name, list(r.shape)) for r in batch_of(loaded).records] == [("input_ids", [2, 77])]


def test_a_model_without_a_table_of_tokens():
    """transformers raises when it is asked for one; that is no answer to whoever runs the profiler."""
    loaded = load("hf:canine", arguments={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_hash_buckets": 16})
    with pytest.raises(NoInput, match="vocabulary"):
        batch_of(loaded)
