"""Two processes train one model: the profile is that of the model by itself on the process's batch, no process waits for another in vain, and the training goes
on as without it, bit for bit.

All situations are run by one pair of processes, which costs a few seconds; each writes what it found, and a test reads it.
"""

import os
import sys
import time
import traceback
import warnings
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DataParallel, DistributedDataParallel

import gradflow
from gradflow import errors, ranks

LIMIT = timedelta(seconds=60)
SITUATIONS = {}

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.skipif(not distributed.is_available() or not distributed.is_gloo_available(), reason="this torch has no gloo"),
]


def situation(run):
    SITUATIONS[run.__name__] = run
    return run


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x):
        return x + self.branch(x)


class Net(nn.Module):
    """Three blocks; with `spare` a layer that no forward reaches."""

    def __init__(self, spare=False):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.blocks, self.head = nn.Linear(4, 8), nn.ModuleList(Block(8) for _ in range(3)), nn.Linear(8, 3)
        if spare:
            self.spare = nn.Linear(3, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def score(self, x):
        return self(x)


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 4, generator=generator), torch.randint(0, 3, (16,), generator=generator)


class Cast(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net().bfloat16()

    def forward(self, x):
        return self.net(x.bfloat16()).float()


class Scores(nn.Module):
    def __init__(self, net=None):
        super().__init__()
        self.net = Net() if net is None else net

    def forward(self, x):
        return self.net.score(x)


def hooked():
    model = Net()
    model.stem.weight.register_hook(lambda grad: 3 * grad)
    return model


def inside():
    return nn.Sequential(Net())


ALONE = {}  # (what is built, the batch's seed) -> its report, made before there is any other process


def profile_alone(rank):
    for build in (Net, Cast, Scores, hooked, inside):
        for seed in {0, rank}:
            ALONE[build, seed] = gradflow.profile(build(), *batch(seed), cross_entropy)


def distance(report, expected):
    """The largest relative difference between two reports, over gains, λ and norms; every layer and skip has its partner."""
    pairs = [(a.gain, b.gain) for a, b in zip(report.layers, expected.layers, strict=True)]
    pairs += [(a.lam, b.lam) for a, b in zip(report.skips, expected.skips, strict=True)]
    pairs += [(a.gain, b.gain) for a, b in zip(report.highways, expected.highways, strict=True)]
    both = [(p, q) for a, b in zip(report.layers, expected.layers, strict=True) for p, q in zip(a.parameters, b.parameters, strict=True)]
    pairs += [(p.grad_norm, q.grad_norm) for p, q in both] + [(p.weight_norm, q.weight_norm) for p, q in both]
    assert [layer.name for layer in report.layers] == [layer.name for layer in expected.layers]
    assert [skip.id for skip in report.skips] == [skip.id for skip in expected.skips] and report.verdict == expected.verdict
    assert all((a is None) == (b is None) for a, b in pairs)
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs if a is not None)


def train(model, rank, watch=None, where="before", steps=3):
    """A loop of SGD; everything that it computed, as this process holds it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    course = []
    for step in range(steps):
        x, y = batch(10 * step + rank)
        optimizer.zero_grad()
        if watch is not None and where == "before":
            watch(x, y)
        loss = cross_entropy(model(x), y)
        if watch is not None and where == "between":
            watch(x, y)
        loss.backward()
        if watch is not None and where == "after":
            watch(x, y)
        course += [loss.detach(), *(part(p.grad).clone() for p in model.parameters() if p.grad is not None)]
        optimizer.step()
    return [*course, *(part(p.detach()).clone() for p in model.parameters())]


def part(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def watched(build, rank, *, where="before", watches=True):
    """Whether a training of what `build` makes is bit for bit the same under a monitor; and the monitor."""
    plain, model = build(), build()
    monitor = gradflow.Monitor(model, every=2, keep="all")
    return same(train(plain, rank), train(model, rank, (lambda x, y: monitor.observe(x, y, cross_entropy)) if watches else None, where)), monitor


def sharded(spare=False, grouped=False, **options):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, mesh = Net(spare), init_device_mesh("cpu", (2,))
    for block in [list(model.blocks[:2]), model.blocks[2]] if grouped else model.blocks:
        fully_shard(block, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


@situation
def each_process_profiles(rank):
    report = gradflow.profile(DistributedDataParallel(Net()), *batch(rank), cross_entropy)
    return distance(report, ALONE[Net, rank]), report.target.model_class, report.run.notes


@situation
def one_process_profiles(rank):
    plain, model = DistributedDataParallel(Net()), DistributedDataParallel(Net())
    verdict = gradflow.profile(model, *batch(rank), cross_entropy).verdict if rank == 0 else "healthy"
    return verdict, same(train(plain, rank), train(model, rank))


def _averaged(where, watches=True, **options):
    def run(rank):
        spare = options.get("find_unused_parameters", False)
        unharmed, monitor = watched(lambda: DistributedDataParallel(Net(spare), **options), rank, where=where, watches=watches or rank == 0)
        steps = [entry.step for entry in monitor.history.entries] if watches or rank == 0 else [0, 2]
        return unharmed, steps

    return run


SITUATIONS |= {
    "each_before_its_forward": _averaged("before"),
    "each_between_forward_and_backward": _averaged("between"),
    "each_after_its_backward": _averaged("after"),
    "one_before_its_forward": _averaged("before", watches=False),
    "one_between_forward_and_backward": _averaged("between", watches=False),
    "one_after_its_backward": _averaged("after", watches=False),
    "with_unused_parameters": _averaged("between", find_unused_parameters=True),
    "with_gradients_that_are_views_of_buckets": _averaged("between", gradient_as_bucket_view=True, static_graph=True),
}


@situation
def accumulated_without_synchronisation(rank):
    def run(watch):
        model = DistributedDataParallel(Net())
        monitor = gradflow.Monitor(model, every=1)
        with model.no_sync():
            cross_entropy(model(batch(rank)[0]), batch(rank)[1]).backward()
            if watch:
                monitor.observe(*batch(rank), cross_entropy)
        cross_entropy(model(batch(2 + rank)[0]), batch(2 + rank)[1]).backward()
        return [p.grad for p in model.parameters()]

    return same(run(False), run(rank == 0))


@situation
def a_hook_on_a_gradient(rank):
    return distance(gradflow.profile(DistributedDataParallel(hooked()), *batch(rank), cross_entropy), ALONE[hooked, rank])


@situation
def inside_another_module(rank):
    outer = nn.Sequential(DistributedDataParallel(Net()))  # what `inside` builds, distributed
    report = gradflow.profile(outer, *batch(rank), cross_entropy) if rank == 0 else None
    return None if report is None else distance(report, ALONE[inside, rank])


def _sharded(where="before", **options):
    def run(rank):
        unharmed, monitor = watched(lambda: sharded(**options), rank, where=where)
        model = sharded(**options)
        shards = [p.to_local().clone() for p in model.parameters()]
        report = gradflow.profile(model, *batch(rank), cross_entropy)
        assert same(shards, [p.to_local() for p in model.parameters()])
        return unharmed, distance(report, ALONE[Net, rank]), [entry.step for entry in monitor.history.entries], report.opaque, report.run.notes

    return run


SHARDED = {
    "sharded": _sharded(),
    "sharded_between_forward_and_backward": _sharded("between"),
    "sharded_after_its_backward": _sharded("after"),
    "sharded_until_after_the_backward": _sharded("between", reshard_after_forward=False),
    "sharded_in_groups": _sharded(grouped=True),
}
SITUATIONS |= SHARDED


@situation
def sharded_in_bfloat16(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model, mesh = Net(), init_device_mesh("cpu", (2,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32))
    report = gradflow.profile(model, *batch(rank), cross_entropy)
    gains = zip(report.layers, ALONE[Cast, rank].layers, strict=True)
    return max(abs(a.gain - b.gain) / b.gain for a, b in gains), next(iter(model.parameters())).dtype == torch.float32


@situation
def sharded_with_a_method_of_its_own(rank):
    from torch.distributed.fsdp import register_fsdp_forward_method

    model = Scores(sharded())
    register_fsdp_forward_method(model.net, "score")
    report = gradflow.profile(model, *batch(rank), cross_entropy)
    return distance(report, ALONE[Scores, rank]), "score" in vars(model.net)


@situation
def accumulated_shards(rank):
    def run(watch):
        model = sharded()
        model.set_requires_gradient_sync(False)
        cross_entropy(model(batch(rank)[0]), batch(rank)[1]).backward()
        if watch:
            gradflow.profile(model, *batch(rank), cross_entropy)
        model.set_requires_gradient_sync(True)
        cross_entropy(model(batch(2 + rank)[0]), batch(2 + rank)[1]).backward()
        return [p.grad.to_local() for p in model.parameters()]

    return same(run(False), run(True))


@situation
def tensor_parallel(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model = Net()
    for block in model.blocks:
        parallelize_module(block, init_device_mesh("cpu", (2,)), {"branch.1": ColwiseParallel(), "branch.3": RowwiseParallel()})
    report, expected = gradflow.profile(model, *batch(0), cross_entropy), ALONE[Net, 0]
    both = [(p, q) for a, b in zip(report.layers, expected.layers, strict=True) for p, q in zip(a.parameters, b.parameters, strict=True)]
    whole = [(a.gain, b.gain) for a, b in zip(report.layers, expected.layers, strict=True) if not a.name.endswith(("branch.1", "branch.2"))]
    return max(abs(a - b) / b for a, b in [*whole, *((p.grad_norm, q.grad_norm) for p, q in both)]), [skip.lam for skip in report.skips], report.run.notes


@situation
def one_flat_tensor(rank):
    from torch.distributed.fsdp import FullyShardedDataParallel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice to use fully_shard
        model = FullyShardedDataParallel(Net(), device_id=torch.device("cpu"), use_orig_params=True)
    return [
        _refusal(lambda: gradflow.profile(model, *batch(rank), cross_entropy)),
        _refusal(lambda: gradflow.Monitor(nn.Sequential(model))),
        _refusal(lambda: gradflow.Monitor(model.module)),
    ]


def _refusal(run):
    try:
        run()
    except errors.GradflowError as error:
        return type(error).__name__, error.fact, error.remedy
    return None


@situation
def one_process_profiles_a_sharded_model(rank):
    plain, model = sharded(), sharded()
    ranks.PATIENCE = timedelta(seconds=1)
    refused = [_refusal(lambda: gradflow.profile(model, *batch(rank), cross_entropy))] if rank == 0 else []
    unharmed = same(train(plain, rank), train(model, rank))
    ranks.PATIENCE, began = LIMIT, time.monotonic()
    if rank == 1:
        refused.append(_refusal(lambda: gradflow.profile(model, *batch(rank), cross_entropy)))
    at_once = time.monotonic() - began < 10
    return refused, unharmed, at_once, distance(gradflow.profile(sharded(), *batch(rank), cross_entropy), ALONE[Net, rank])


@situation
def one_process_profiles_a_synchronised_batch_norm(rank):
    ranks.PATIENCE = timedelta(seconds=1)
    refused = _refusal(lambda: gradflow.profile(nn.Sequential(nn.Linear(4, 8), nn.SyncBatchNorm(8)), batch(0)[0])) if rank == 0 else None
    ranks.PATIENCE = LIMIT
    return refused


def _process(rank, folder):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    profile_alone(rank)
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=LIMIT)
    found = {}
    for name, run in SITUATIONS.items():
        try:
            found[name] = run(rank)
        except Exception:
            found[name] = traceback.format_exc()
        distributed.barrier()
    torch.save(found, folder / f"{rank}.pt")
    distributed.barrier()
    os._exit(0)  # gloo's threads may outlive the interpreter's end, and abort it


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """found(situation) -> what each of the two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_process, (folder,), nprocs=2)
    both = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]

    def of(name):
        for rank, results in enumerate(both):
            assert not isinstance(results[name], str), f"process {rank}:\n{results[name]}"
        return [results[name] for results in both]

    return of


def test_a_model_whose_gradients_are_averaged(found):
    """The report is that of the module by itself on the process's batch, under its own names; a note says that nothing was averaged."""
    for far, model_class, notes in found("each_process_profiles"):
        assert far < 1e-5 and model_class == "Net"
        assert notes == ("DistributedDataParallel is left out here: gradients are those of this batch alone, before any average",)


def test_one_process_alone_profiles(found):
    """Nothing is communicated, so that no process waits, and the training after it is the same."""
    assert found("one_process_profiles") == [("healthy", True)] * 2


@pytest.mark.parametrize("who", ["each", "one"])
@pytest.mark.parametrize("where", ["before_its_forward", "between_forward_and_backward", "after_its_backward"])
def test_averaged_training_is_bit_for_bit_as_without(found, who, where):
    """Losses, averaged gradients and parameters, whether all processes are watched or one is, wherever `observe` stands."""
    assert found(f"{who}_{where}") == [(True, [0, 2])] * 2


@pytest.mark.parametrize("how", ["with_unused_parameters", "with_gradients_that_are_views_of_buckets"])
def test_other_ways_of_averaging(found, how):
    """`find_unused_parameters`; `gradient_as_bucket_view` with `static_graph`."""
    assert found(how) == [(True, [0, 2])] * 2


def test_accumulation_without_synchronisation(found):
    """A profile of one process within `no_sync` leaves what both accumulate."""
    assert found("accumulated_without_synchronisation") == [True, True]


def test_a_hook_on_a_gradient(found):
    """What a hook makes of a parameter's gradient is what is measured, as on one process."""
    assert max(found("a_hook_on_a_gradient")) < 1e-5


def test_a_distributed_part(found):
    """A `DistributedDataParallel` inside another module is left out as well: one process alone profiles it."""
    far, nothing = found("inside_another_module")
    assert far < 1e-5 and nothing is None


@pytest.mark.parametrize("how", SHARDED)
def test_a_sharded_model(found, how):
    """`fully_shard`: gains, λ and norms of the whole model, nothing opaque; the training, its shards and its gradients are the same bit for bit."""
    for unharmed, far, steps, opaque, notes in found(how):
        assert unharmed and far < 1e-5 and steps == [0, 2] and opaque == ()
        assert notes == ("fully_shard is left out here: gradients are those of this batch alone, before any average",)


def test_a_sharded_model_in_bfloat16(found):
    """The casts of its policy are kept: gains are those of the model in bfloat16, and the shards stay float32."""
    for far, kept in found("sharded_in_bfloat16"):
        assert far < 1e-5 and kept


def test_a_method_that_gathers(found):
    """`register_fsdp_forward_method` gathers and reduces nothing while the model is profiled, and is there afterwards."""
    for far, kept in found("sharded_with_a_method_of_its_own"):
        assert far < 1e-5 and kept


def test_accumulated_shards(found):
    """A profile between two micro-batches leaves the gradients that are not reduced yet."""
    assert found("accumulated_shards") == [True, True]


def test_tensor_parallel_layers(found):
    """Weights' gradients and all that is whole are those of the model by itself; a note says which gains are of a part."""
    for far, lams, notes in found("tensor_parallel"):
        assert far < 1e-5 and lams == pytest.approx([1.0] * 3)
        assert "the gain is that of the part that this process holds" in notes[0]


def test_one_flat_tensor_is_refused(found):
    """`FullyShardedDataParallel` has no parameters of layers: one error says what to do, from the profile and from the monitor."""
    for refusals in found("one_flat_tensor"):
        for (kind, fact, remedy), name in zip(refusals, ("The model", "0", "stem"), strict=True):
            assert kind == "ShardedModel" and fact.startswith(f"{name} is held by FullyShardedDataParallel") and "fully_shard" in remedy


def test_one_process_cannot_profile_a_sharded_model(found):
    """It is told so instead of waiting for ever, and the training of both goes on; who comes after that does not wait at all, and the next time they meet."""
    for ((kind, fact, remedy),), unharmed, at_once, far in found("one_process_profiles_a_sharded_model"):
        assert kind == "RanksMissing" and "runs on 2 processes together" in fact and "on each of them" in remedy
        assert unharmed and at_once and far < 1e-5


def test_a_synchronised_batch_norm_needs_all(found):
    """Its statistics are a collective: one process alone is told so."""
    (kind, _, _), nothing = found("one_process_profiles_a_synchronised_batch_norm")
    assert kind == "RanksMissing" and nothing is None


def test_data_parallel_is_left_out():
    """On one device the module in it is profiled, under its own names."""
    report = gradflow.profile(DataParallel(Net()), *batch(0), cross_entropy)
    assert distance(report, gradflow.profile(Net(), *batch(0), cross_entropy)) == 0 and report.run.notes[0].startswith("DataParallel is left out")


def test_one_process_needs_nothing_of_this():
    """Without a process group nothing is imported, replaced or waited for."""
    model = Net()
    before = list(model.parameters())
    with ranks.gathered(model):
        assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert "torch.distributed.fsdp" not in sys.modules or ranks._partners(model) == ()
