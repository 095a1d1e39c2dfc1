"""The options that commands share, and what they say to `assembly.Options`. Imports torch only when they are read."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.models import OptionInfo

from gradflow.errors import UsageError
from gradflow.render.figure import named

if TYPE_CHECKING:
    from gradflow.assembly import Options


def choice(option: str, names: type[Enum], help: str) -> OptionInfo:
    """An option that takes one of some words. Another word is refused in gradflow's own form, with the nearest right one."""
    info: OptionInfo = typer.Option(option, parser=lambda word: named(option, word, names), metavar=f"[{'|'.join(n.value for n in names)}]", help=help)
    return info


def whole(option: str, least: int | None, help: str) -> OptionInfo:
    """An option that takes a whole number, `least` or more; what asks for more than that is asked later."""
    above = "" if least is None else f" of {least} or more"

    def read(word: object) -> int:
        try:
            number = int(str(word))
        except ValueError:
            raise UsageError(option=option, value=word, expected=f"a whole number{above}") from None
        if least is not None and number < least:
            raise UsageError(option=option, value=word, expected=f"a whole number{above}")
        return number

    info: OptionInfo = typer.Option(option, parser=read, metavar="<int>", help=help)
    return info


def real(option: str, least: float, help: str) -> OptionInfo:
    """An option that takes a finite number, `least` or more."""

    def read(word: object) -> float:
        try:
            number = float(str(word))
        except ValueError:
            number = math.nan
        if not least <= number < math.inf:
            raise UsageError(option=option, value=word, expected=f"a number of {least:g} or more")
        return number

    info: OptionInfo = typer.Option(option, parser=read, metavar="<float>", help=help)
    return info


TargetName = Annotated[
    str, typer.Argument(metavar="TARGET", help="model.py[:NAME], package.module:NAME, torchvision:NAME, timm:NAME, hf:MODEL_TYPE, hf:DIR or a saved model.")
]
Arguments = Annotated[list[str] | None, typer.Option(help="Argument of the builder, or field of the config, as name=value; may be repeated.")]
Weights = Annotated[Path | None, typer.Option(help="State dict to load (.pt without pickled code, or .safetensors).")]
Inputs = Annotated[list[str] | None, typer.Option(help="8x3x224x224, x=float32[4,16] or ids=int64[2,128]<50257; may be repeated.")]
BatchFile = Annotated[Path | None, typer.Option(help="File with the batch: .pt, .npz or .safetensors.")]
LossName = Annotated[str | None, typer.Option(help="probe, cross_entropy, mse, …; by default the file's or the model's own, else probe.")]
Device = Annotated[str, typer.Option(help="Where to run, e.g. cpu or cuda:0.")]
Dtype = Annotated[str | None, typer.Option(help="Cast the model to float32, float64, bfloat16 or float16.")]
Amp = Annotated[str | None, typer.Option(help="Run the forward under autocast: bf16 or fp16.")]
Evaluate = Annotated[bool, typer.Option("--eval", help="Run in eval mode.")]
Seed = Annotated[int, whole("--seed", 0, "For weights, inputs, dropout and everything else drawn at random.")]
Trust = Annotated[bool, typer.Option("--trust", help="Allow files that run code when they are loaded.")]
All = Annotated[bool, typer.Option("--all", help="Show every row: fold nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def options_of(
    arg: list[str] | None, weights: Path | None, input: list[str] | None, batch: Path | None, loss: str | None,
    device: str, dtype: str | None, amp: str | None, eval: bool, seed: int, trust: bool,
) -> Options:  # fmt: skip
    """What the options say.

    Raises:
        errors.ArgumentError: an --arg is not name=value.
    """
    from gradflow.assembly import Options
    from gradflow.subject import parse_arguments

    return Options(
        arguments=parse_arguments(arg or []),
        weights=weights,
        inputs=tuple(input or ()),
        batch=batch,
        loss=loss,
        device=device,
        dtype=dtype,
        amp=amp,
        evaluate=eval,
        seed=seed,
        trust=trust,
    )
