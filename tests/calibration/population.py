"""Does the severity at initialisation say which networks will not train? Networks of the first half of the seeds may be looked at; the others are held out."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

import gradflow
from tests.calibration import elsewhere
from tests.calibration.cache import OUTCOMES, outcomes
from tests.calibration.networks import Spec, build, draw
from tests.calibration.scoring import auc, confusion, interval
from tests.calibration.training import BATCH, ENOUGH, MOMENTUM, RATES, STEPS, TRAINS, first_batch

SIZE = 480
LEAST = 0.95  # AUC on the held-out half
HALVES = ("first", "held out")


def measure(size: int = SIZE, path: Path = OUTCOMES, processes: int = 2) -> dict:
    """Everything that the page says: `rows` of networks, and of each half its AUCs and its confusion matrix.

    The outcomes come from `path` where it holds them, else from training; the scores are measured anew.
    """
    specs = [draw(seed) for seed in range(size)]
    trained = outcomes(specs, path, processes)
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        scored = pool.map(score, specs, chunksize=8)
    rows = [
        {**found, "best": trained[spec.seed].best, "trains": trained[spec.seed].trains, "half": half_of(spec.seed, size), "what": describe(spec)}
        for spec, found in zip(specs, scored, strict=True)
    ]
    halves = {half: judged([row for row in rows if row["half"] == half]) for half in HALVES}
    return {"rows": rows, "halves": halves, "all": judged(rows), "histogram": histogram([row["best"] for row in rows])}


def half_of(seed: int, size: int = SIZE) -> str:
    """The half that a network belongs to."""
    return HALVES[seed >= size // 2]


def score(spec: Spec) -> dict:
    """What gradflow and the others say of one network before any step."""
    images, labels = first_batch()
    report = gradflow.profile(build(spec), images, labels, loss="cross_entropy")
    worst = [f"{f.rule} {f.decades:.1f}" for f in report.findings if f.severity != "info" or f.decades]
    plain = elsewhere.observe(build(spec))
    return {
        "seed": spec.seed,
        "severity": report.severity,
        "verdict": report.verdict,
        "findings": list(dict.fromkeys(worst))[:4],
        "elsewhere": {name: tool(plain) for name, tool in elsewhere.TOOLS.items()},
        "depth": spec.depth,
    }


def judged(rows: Sequence[dict]) -> dict:
    """AUCs of "does not train" and the confusion matrix of the verdict "sick", over `rows`."""
    ill = [not row["trains"] for row in rows]
    severities = [row["severity"] for row in rows]
    others = {name: [row["elsewhere"][name] for row in rows] for name in elsewhere.TOOLS}
    return {
        "networks": len(rows),
        "ill": sum(ill),
        "auc": auc(severities, ill),
        "interval": interval(severities, ill),
        "alarm": auc([float(row["verdict"] == "sick") for row in rows], ill),
        "confusion": confusion([row["verdict"] for row in rows], ill),
        "elsewhere": {
            name: {"score": auc(scores, ill), "alarm": auc([float(s > 0) for s in scores], ill), "confusion": confusion([s > 0 for s in scores], ill)}
            for name, scores in others.items()
        },
        "depth": auc([float(row["depth"]) for row in rows], ill),
    }


def histogram(accuracies: Sequence[float]) -> list[int]:
    """Counts of best test accuracies in ten bins of 0.1."""
    counts = Counter(min(9, math.floor(10 * accuracy + 1e-9)) for accuracy in accuracies)
    return [counts[bin_] for bin_ in range(10)]


def describe(spec: Spec) -> str:
    """One line, e.g. "mlp 12×64 relu, gain 1.31, batch norm, scaled 0.5 (pre)"."""
    amount = {"scaled": f" {spec.lam:g}", "gated": f" {spec.gate_bias:g}", "dropout": f" {spec.drop:g}"}.get(spec.shortcut, "")
    norm = "no norm" if spec.norm == "none" else f"{spec.norm} norm"
    order = "pre" if spec.preact else "post"
    return f"{spec.form} {spec.depth}×{spec.width} {spec.activation}, gain {spec.gain:.2f}, {norm}, {spec.shortcut}{amount} ({order}, {spec.branch_layers})"


def passes(found: dict) -> bool:
    """Whether there are 200 networks or more and the AUC on the held-out half is `LEAST` or more."""
    return len(found["rows"]) >= 200 and found["halves"]["held out"]["auc"] >= LEAST


def page(found: dict) -> str:
    """The section of docs/calibration.md, in markdown."""
    held, first = found["halves"]["held out"], found["halves"]["first"]
    rates = ", ".join(f"{rate:g}" for rate in sorted(RATES))
    bars = "\n".join(f"| {i / 10:.1f} to {(i + 1) / 10:.1f} | {n} |" for i, n in enumerate(found["histogram"]))
    between = sum(0.4 <= row["best"] < 0.6 for row in found["rows"])
    low, high = held["interval"]
    return f"""## Networks that were trained

{len(found["rows"])} small networks for scikit-learn's digits (8×8 pixels, ten classes), drawn by seed: multilayer perceptrons and convolutional
networks of 2 to 60 weighted layers, six activations, gains from 0.5 to 2 of their proper initialisation, no norm, batch norm or layer norm,
no shortcut or an identity, scaled (λ from 0.1 to 2), gated, projecting or dropping one, the activation before the weights or after the sum.

Each was trained by SGD with momentum {MOMENTUM:g} for {STEPS} steps of {BATCH} digits at {len(RATES)} learning rates ({rates}), each time
from the same initial weights, and its best test accuracy counts. SGD and not Adam, which divides by the gradient's own size and hides what is to be
predicted. A network that reached {ENOUGH:g} was not tried at further rates, for they could only raise its best. It *trains* if its best is {TRAINS:g} or more:
chance is 0.1 and a linear classifier reaches 0.95. That was fixed before the first was trained. {between} of them lie
between 0.4 and 0.6, where another line would judge otherwise.

| best test accuracy | networks |
|---|---:|
{bars}

gradflow profiled each network before its first step, on one batch of {BATCH} digits. The AUC is the chance that a network that does not train has a
higher severity than one that does. What the severity counts, and from where on, was chosen on the networks of the first half of the seeds and fixed before
any of the other half was profiled; it has not been changed since.

| predictor of "does not train" | AUC, first half | AUC, held out | AUC of its alarm, held out | missed | false alarms |
|---|---:|---:|---:|---:|---:|
{_gradflow_row(found)}
{_other_rows(found)}
| depth | {first["depth"]:.3f} | {held["depth"]:.3f} | | | |

The 95 % interval of gradflow's AUC on the held-out half, by bootstrap over networks, is {low:.3f} to {high:.3f}. The other tools were made to watch a training
run; here each has what gradflow has, one batch before the first step, its thresholds as published, and a learning rate of {elsewhere.RATE:g} where it asks for
updates. Its score is how many decades a network lies beyond the nearest of its thresholds, its alarm whether it lies beyond one; gradflow's alarm is the
verdict *sick*. Depth is there to show how much a guess is worth that looks at no gradient.

| verdict, held out | healthy | warnings | sick |
|---|---:|---:|---:|
| trains | {_cells(held["confusion"], "trains")} |
| does not train | {_cells(held["confusion"], "ill")} |

| verdict, first half | healthy | warnings | sick |
|---|---:|---:|---:|
| trains | {_cells(first["confusion"], "trains")} |
| does not train | {_cells(first["confusion"], "ill")} |

An error means more than that a network of this size will not train on digits: its limits lie where no published model at its own initialisation does
([above](#healthy-models)), so that many networks that do not train are warned of and not called sick. The severity is finer than the verdict:
{_above(found["rows"])}

Misjudged, of both halves: called sick although they train, or healthy although they do not.

| network | half | best accuracy | verdict | severity | findings |
|---|---|---:|---|---:|---|
{_misjudged(found["rows"])}
"""


def _gradflow_row(found: dict) -> str:
    first, held = (found["halves"][half] for half in HALVES)
    table, trains = held["confusion"]["ill"], held["confusion"]["trains"]
    missed = sum(table.values()) - table.get("sick", 0)
    return f"| **gradflow** | {first['auc']:.3f} | **{held['auc']:.3f}** | {held['alarm']:.3f} | {missed} | {trains.get('sick', 0)} |"


def _other_rows(found: dict) -> str:
    first, held = (found["halves"][half]["elsewhere"] for half in HALVES)
    return "\n".join(
        f"| {name} | {first[name]['score']:.3f} | {held[name]['score']:.3f} | {held[name]['alarm']:.3f} "
        f"| {held[name]['confusion']['ill'].get('False', 0)} | {held[name]['confusion']['trains'].get('True', 0)} |"
        for name in first
    )


def _above(rows: Sequence[dict]) -> str:
    """How many of either kind have a severity above 0, in the held-out half."""
    held = [row for row in rows if row["half"] == HALVES[1]]
    ill, well = ([row["severity"] > 0 for row in held if row["trains"] is trains] for trains in (False, True))
    return f"it is above 0 for {sum(ill)} of the {len(ill)} that do not train and for {sum(well)} of the {len(well)} that do, held out."


def _cells(table: dict, outcome: str) -> str:
    return " | ".join(str(table[outcome].get(verdict, 0)) for verdict in ("healthy", "warnings", "sick"))


def _misjudged(rows: Sequence[dict]) -> str:
    wrong = [row for row in rows if row["verdict"] == ("sick" if row["trains"] else "healthy")]
    return "\n".join(
        f"| {row['seed']}: {row['what']} | {row['half']} | {row['best']:.2f} | {row['verdict']} | {row['severity']:.1f} | {', '.join(row['findings'])} |"
        for row in wrong
    )


def main() -> None:
    """Print the page, or with --json FILE keep what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--outcomes", type=Path, default=OUTCOMES, help="JSON lines of trained networks; what it lacks is trained and appended")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.size, options.outcomes)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    sys.stdout.write(page(found))


if __name__ == "__main__":
    main()
