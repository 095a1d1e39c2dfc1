"""Models that a library names: torchvision, timm, transformers. Random weights, nothing is downloaded unless an argument asks for it."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from gradflow.errors import BrokenExtra, GradflowError, MissingExtra, TargetFileError, UnknownTarget, UntrustedCode
from gradflow.subject.arguments import build, unknown_argument
from gradflow.subject.trace import root_cause, user_traceback

_AUTO = (
    "SEQ_TO_SEQ_CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ",  # before CAUSAL_LM, which for Whisper is its decoder alone
    "MASKED_LM",
    "CAUSAL_LM",
    "IMAGE_CLASSIFICATION",
    "VIDEO_CLASSIFICATION",
    "AUDIO_CLASSIFICATION",
    "CTC",
)
_CONFIG_EXTRAS = ("num_labels", "attn_implementation")
"""Arguments of every transformers config that are not among its stored fields."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a family made: the object that its builder returned, and what to say about it."""

    model: object
    notes: tuple[str, ...] = ()


def extra(package: str, name: str, needed_for: str) -> Any:
    """Import an optional package.

    Raises:
        MissingExtra: it is not installed.
        BrokenExtra: it is installed and fails to import; the error says why.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package.partition(".")[0]:
            raise MissingExtra(package=error.name, extra=name, needed_for=needed_for) from error
        raise BrokenExtra(package=package.partition(".")[0], needed_for=needed_for, error=root_cause(error)) from error
    except Exception as error:
        raise BrokenExtra(package=package.partition(".")[0], needed_for=needed_for, error=root_cause(error)) from error


def from_torchvision(name: str, arguments: Mapping[str, object], *, target: str) -> Built:
    """`torchvision.models.get_model(name, weights=None)`; a detector's or segmenter's backbone is not downloaded either."""
    models = extra("torchvision.models", "torchvision", target)
    known = models.list_models()
    if name.lower() not in known:
        raise UnknownTarget(target=target, reason="torchvision has no such model", suggestions=_near("torchvision:", name.lower(), known))
    builder = models.get_model_builder(name)
    defaults = dict.fromkeys({"weights", "weights_backbone"} & inspect.signature(builder).parameters.keys())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet's, on its default initialisation
        return Built(model=build(builder, {**defaults, **arguments}, target=target))


def from_timm(name: str, arguments: Mapping[str, object], *, target: str) -> Built:
    """`timm.create_model(name, pretrained=False)`."""
    timm = extra("timm", "timm", target)
    if not timm.is_model(name):
        raise UnknownTarget(target=target, reason="timm has no such model", suggestions=_near("timm:", name, timm.list_models()))

    def builder(**kwargs: object) -> object:
        return timm.create_model(name, **kwargs)

    return Built(model=build(builder, {"pretrained": False, **arguments}, target=target))


def from_transformers(name: str, arguments: Mapping[str, object], *, target: str, trust: bool) -> Built:
    """A transformers model with random weights from the config of a folder or of a model type; `arguments` set fields of the config.

    Raises:
        UnknownTarget: neither a folder with a config.json nor a model type.
        ArgumentError: no such field in the config.
        UntrustedCode: the config names code of its own, and `trust` is off.
        TargetFileError: transformers refused the config.
    """
    transformers = extra("transformers", "hf", target)
    with _blamed(target):
        read = _config_reader(transformers, name, target=target, trust=trust)
        _check_fields(read(), arguments)
        config = read(**arguments)
        maker = _maker(transformers, config, trust)
    if maker is None:
        raise UnknownTarget(target=target, reason=f"transformers has no model for {type(config).__name__}")
    model = build(lambda: maker(config), {}, target=target)
    return Built(model=model, notes=(f"{type(model).__name__} was built from its config with random weights",))


@contextmanager
def _blamed(target: str) -> Iterator[None]:
    """Tells an installation that does not import (transformers imports on demand) from a config that transformers refuses."""
    try:
        yield
    except GradflowError:
        raise
    except (ImportError, RuntimeError) as error:
        raise BrokenExtra(package="transformers", needed_for=target, error=root_cause(error)) from error
    except Exception as error:  # its validation errors have no common class but Exception
        raise TargetFileError(target=target, action="reading its config", error=error, traceback=user_traceback(error)) from error


def _config_reader(transformers: Any, name: str, *, target: str, trust: bool) -> Callable[..., Any]:
    """What reads the config, with overriding fields as keywords."""
    folder, known = Path(name), transformers.CONFIG_MAPPING
    if (folder / "config.json").is_file():
        if not trust and _has_own_code(transformers, folder):
            raise UntrustedCode(target=target, what="Python code of its own (auto_map in config.json)")
        return partial(transformers.AutoConfig.from_pretrained, str(folder), local_files_only=True, trust_remote_code=trust)
    if folder.is_dir():
        raise UnknownTarget(target=target, reason="this folder has no config.json")
    if name not in known:
        reason = "it is neither a folder with a config.json nor a model type of transformers (nothing is downloaded)"
        raise UnknownTarget(target=target, reason=reason, suggestions=_near("hf:", name, list(known.keys())))
    return partial(transformers.AutoConfig.for_model, name)


def _has_own_code(transformers: Any, folder: Path) -> bool:
    fields, _ = transformers.PretrainedConfig.get_config_dict(str(folder), local_files_only=True)
    return "auto_map" in fields and fields.get("model_type") not in transformers.CONFIG_MAPPING


def _check_fields(config: Any, arguments: Mapping[str, object]) -> None:
    """transformers keeps any unknown argument as a new attribute, so that a slip of the pen would pass in silence."""
    fields = sorted({*config.to_dict(), *config.attribute_map, *inspect.signature(type(config)).parameters, *_CONFIG_EXTRAS} - {"kwargs", "self"})
    for name in arguments:
        if name not in fields:
            raise unknown_argument(name, [field for field in fields if not field.startswith("_")])


def _maker(transformers: Any, config: Any, trust: bool) -> Any:
    """What builds the model of a config: the class that it names itself, else the first of `_AUTO` that has it, else the bare model; None if there is none."""
    own = getattr(config, "auto_map", None) or {}
    auto_name = next((name for name in own if name.startswith("AutoModel")), None)
    if trust and auto_name is not None and hasattr(transformers, auto_name):
        return lambda config: getattr(transformers, auto_name).from_config(config, trust_remote_code=True)
    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    auto = import_module("transformers.models.auto.modeling_auto")
    for task in (*(f"MODEL_FOR_{task}_MAPPING" for task in _AUTO), "MODEL_MAPPING"):
        mapping = getattr(auto, task, {})
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, (tuple, list)) else found
    return _part(type(config))


def _part(kind: type) -> Any:
    """The model of a config that no automatic class has, mostly a part of a larger model: that of the class's own file; None without one."""
    home = kind.__module__.replace(".configuration_", ".modeling_")
    try:
        classes = vars(import_module(home)).values()
    except ModuleNotFoundError as error:
        if error.name != home:
            raise
        return None
    own = [c for c in classes if isinstance(c, type) and c.__module__ == home and getattr(c, "config_class", None) is kind and "PreTrained" not in c.__name__]
    return min(own, key=lambda c: not c.__name__.endswith("Model"), default=None)


def _near(prefix: str, name: str, known: list[str]) -> list[str]:
    return [prefix + near for near in difflib.get_close_matches(name, known, n=3)]
