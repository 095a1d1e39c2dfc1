"""Models that are trained by several processes: what is wrapped is unwrapped, what is sharded is gathered, and whoever must take part is waited for.

A profile is of one process and its batch, and starts no communication that the model itself would not: the wrapper that averages gradients over processes is
left out. Where the model cannot run without the others (its parameters are sharded, its batch norm is synchronised) all of them must profile at the same step.
They first meet at the store through which torch's processes found each other, because a collective that some of them never join would hang, or pair with one of
the training's.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils._pytree import tree_map_only

from gradflow.errors import RanksMissing, ShardedModel

PATIENCE = timedelta(seconds=60)  # processes in step with each other arrive within one training step
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")  # torch.compile's, and that of an activation checkpoint
_HOOKS = "torch.distributed.fsdp."  # where those of `fully_shard` are written
_met: WeakKeyDictionary[Any, Counter[tuple[int, ...]]] = WeakKeyDictionary()  # by store: how often these ranks have met


def behind(module: nn.Module) -> nn.Module:
    """What a wrapper of torch's holds, or a wrapper in it; the module itself where it is none."""
    while (name := _held_as(module)) and (inner := module._modules[name]) is not None:
        module = inner
    return module


def _held_as(module: nn.Module) -> str:
    """The name that a wrapper has for what it holds; "" of any other module."""
    if isinstance(module, (DataParallel, DistributedDataParallel)):
        return "module"
    return next((name for name in _WRAPPERS if name in module._modules), "")


def notes(model: nn.Module) -> tuple[str, ...]:
    """What a reader is to know of a model that several processes train."""
    wrappers = {type(m).__name__ for m in model.modules() if isinstance(m, (DataParallel, DistributedDataParallel))}
    found = [*sorted(wrappers), *(["fully_shard"] if any(map(_is_sharded, model.modules())) else [])]
    said = [f"{name} is left out here: gradients are those of this batch alone, before any average" for name in found]
    if not found and len(_partners(model)) > 1 and any(hasattr(p, "device_mesh") for p in model.parameters()):
        said.append("parameters are spread over processes: where a layer returns a part of its output, the gain is that of the part that this process holds")
    return tuple(said)


def check_whole(model: nn.Module) -> None:
    """Refuse a model whose parameters are parts of one flat tensor.

    Raises:
        ShardedModel: `FullyShardedDataParallel` holds it, or is in it.
    """
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return
    for name, module in model.named_modules():
        inside = any(getattr(p, "_fsdp_flattened", False) for p in module.parameters(recurse=False))  # torch's own mark; the wrapper may be out of sight
        if inside or isinstance(module, fsdp.FullyShardedDataParallel):
            raise ShardedModel(name=name)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """What `fully_shard` sharded is whole while the block runs, and its hooks are out; each process must enter. Where several processes train a model that is
    whole in each, the gradients of the block are no business of the others.

    Memory: of a sharded model all parameters at once, in the type that they are gathered in; of others none.

    Raises:
        RanksMissing: another process that must take part does not.
    """
    partners = _partners(model)
    if len(partners) > 1:
        _meet(partners)
    with ExitStack() as stack:
        sharded = [m for m in model.modules() if _is_sharded(m)]
        for module in sharded:
            _gather(stack, module)
            _unhook(stack, module)
        if not sharded and _is_distributed():
            _stand_in(stack, model)
        yield


def _is_sharded(module: nn.Module) -> bool:
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and hasattr(fsdp, "FSDPModule") and isinstance(module, fsdp.FSDPModule)


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _gather(stack: ExitStack, module: Any) -> None:
    """What was whole already (a training's forward is under way) stays whole afterwards."""
    before = list(map(id, module.parameters()))
    module.unshard()
    if list(map(id, module.parameters())) != before:
        stack.callback(module.reshard)


def _unhook(stack: ExitStack, module: Any) -> None:
    """Without the hooks nothing is gathered, sharded or reduced on the way; of what they do only the casts are left.

    A method that `register_fsdp_forward_method` was told of does by itself what hooks do for `forward`.
    """
    policy = module._get_fsdp_state()._mp_policy
    for name, method in list(vars(module).items()):
        function: Any = getattr(method, "__func__", None)
        if hasattr(function, "__wrapped__") and function.__globals__["__name__"].startswith(_HOOKS):
            stack.callback(vars(module).__setitem__, name, method)
            vars(module)[name] = partial(_call_cast, policy, module, function.__wrapped__)
    for hooks, cast in ((module._forward_pre_hooks, partial(_cast_inputs, policy)), (module._forward_hooks, partial(_cast_output, policy))):
        for key, hook in hooks.items():
            if getattr(hook, "__module__", "").startswith(_HOOKS):
                stack.callback(hooks.__setitem__, key, hook)
                hooks[key] = cast


def _stand_in(stack: ExitStack, model: nn.Module) -> None:
    """Parameters of the same numbers stand where the training's stood: what averages gradients hangs on the accumulation of theirs, and would take a
    profile's backward pass for the one that it waits for.
    """
    twins: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        own = {} if isinstance(module, torch.jit.ScriptModule) else module._parameters
        for name, parameter in list(own.items()):
            if type(parameter) is nn.Parameter and parameter.requires_grad:
                stack.callback(setattr, module, name, parameter)
                if parameter not in twins:
                    twins[parameter] = nn.Parameter(parameter.detach())
                    for hook in (parameter._backward_hooks or {}).values():
                        twins[parameter].register_hook(hook)  # type: ignore[no-untyped-call]
                setattr(module, name, twins[parameter])


def _call_cast(policy: Any, module: nn.Module, method: Callable[..., object], *args: object, **kwargs: object) -> object:
    args, kwargs = _cast_inputs(policy, module, args, kwargs)
    return _cast_output(policy, module, args, method(*args, **kwargs))


def _cast_inputs(policy: Any, module: nn.Module, args: object, kwargs: object) -> Any:
    return _cast(policy.param_dtype if policy.cast_forward_inputs else None, (args, kwargs))


def _cast_output(policy: Any, module: nn.Module, args: object, output: object) -> Any:
    return _cast(policy.output_dtype, output)


def _cast(dtype: torch.dtype | None, values: Any) -> Any:
    return values if dtype is None else tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, values)


def _partners(model: nn.Module) -> tuple[int, ...]:
    """The ranks without which the model does not run; none where it needs no other."""
    if not _is_distributed():
        return ()
    ranks: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm) and module.training:
            ranks |= set(distributed.get_process_group_ranks(module.process_group or distributed.group.WORLD))
    for parameter in model.parameters():
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None:
            ranks |= set(mesh.mesh.flatten().tolist())
    return tuple(sorted(ranks))


def _meet(ranks: tuple[int, ...]) -> None:
    """Wait until each of the ranks has come here as often as this one.

    One that gives up adds as many as there are, so that whoever comes after it sees that and does not go on either.
    """
    store = distributed.distributed_c10d._get_default_store()
    met = _met.setdefault(store, Counter())
    met[ranks] += 1
    place = f"gradflow/{'-'.join(map(str, ranks))}/{met[ranks]}"
    came = store.add(f"{place}/came", 1)
    if came == len(ranks):
        store.set(f"{place}/all", "")
    if came < len(ranks):
        try:
            store.wait([f"{place}/all"], PATIENCE)
            return
        except RuntimeError:  # what a store raises differs from one kind to another; one that is out of reach says so at the next call
            came = store.add(f"{place}/came", len(ranks)) - len(ranks)
    if came != len(ranks):
        raise RanksMissing(ranks=len(ranks), seconds=PATIENCE.total_seconds())
