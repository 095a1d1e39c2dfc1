"""Where in a model an exception came up, and what the module there takes. Runs nothing."""

from __future__ import annotations

from types import TracebackType

from torch import nn

from gradflow.subject.structure import class_name, dtype_name


def failing_module(error: BaseException, model: nn.Module) -> tuple[str, nn.Module] | None:
    """The innermost module of `model` that was being called when `error` was raised, with its name; None where that was `model` itself."""
    names = {id(module): name for name, module in model.named_modules()}
    found: tuple[str, nn.Module] | None = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and names.get(id(module)):
            found = names[id(module)], module
        trace = trace.tb_next
    return found


def place(found: tuple[str, nn.Module] | None) -> str:
    """`, in blocks.3.conv (Conv2d)`; empty where no module inside the model is to blame."""
    return "" if found is None else f", in {found[0]} ({class_name(found[1])})"


def takes(found: tuple[str, nn.Module] | None, error: BaseException) -> str:
    """What the module takes, where the exception is about a dtype or an index; else empty."""
    if found is None:
        return ""
    name, module = found
    if isinstance(module, nn.Embedding) and isinstance(error, (IndexError, RuntimeError)):
        return f"{name} takes whole numbers below {module.num_embeddings}, such as --input int64[2,16]<{module.num_embeddings}. "
    own = next(module.parameters(recurse=False), None)
    if own is None or not isinstance(error, RuntimeError) or not any(word in str(error) for word in ("dtype", "scalar type", "should be the same")):
        return ""
    given = dtype_name(own.dtype)
    return f"{name} has {given} weights, and takes {given}. "
