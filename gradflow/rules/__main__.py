"""`python -m gradflow.rules` prints docs/rules.md: the page is the table."""

from __future__ import annotations

import sys

from gradflow.rules import RULES
from gradflow.rules.pages import entry

_HEAD = """# Rules

A finding names its rule, the place, the measured value and the limit that it broke. An *error* makes the verdict sick and the exit code 1, a
*warning* does not, and an *info* is a note that explains. Of errors, and of warnings, those that count in the severity below are told first, the worst before
the others: a highway that is starved before the λ of each of its skips.

The severity of a report ranks models, in powers of ten (*decades*), 30 at most. It is that of the finding that counts most, and 0 where none counts: how
far it lies beyond its first limit. Rules without a limit count as one decade or not at all. What is said of λ counts one decade at most (GF206, GF207) or
nothing (GF201, GF202), for with λ ≠ 1 alone networks train; matrices out of balance (GF111) count nothing. Of several layers that vanish or explode the
one whose gain is farthest from 1 is told first and counts what the worst of them does. Three kinds of note count as well, so
that a healthy verdict may have a severity above 0, which always stands beside the finding that it comes from: a first layer that receives less than
0.03 or more than 30 times the gradient that leaves the loss (GF101, GF102), and more than 30 layers that no skip leads around (GF301). They are no
warnings because published models train with both. At the first layer the band of fluctuation below is not taken off what counts: a network whose
gradient is lost by chance does not train either. Dropout on skips (GF204) counts for the share of coordinates that it leaves on a highway beyond a tenth.

Layer limits are relative to the gradient at the model's own output, so that neither the loss's scale nor its reduction matters, and they are widened
by the band in which the norm of a healthy net fluctuates: two standard deviations ½·√(5 Σ 1/n) of its logarithm over the weighted layers of widths n
that follow on the way to the loss (Hanin 2018, whose √(5 Σ 1/n) is that of the squared norm), at most three decades. Inside a branch that a live skip
bypasses the vanishing limit is widened by five more: attention's queries and keys, squeeze-excite gates and scaled branches are small by design there, and
depth shows on the trunk. Behind a LayerScale or another small elementwise factor the gradient is measured against what the factor lets through.

λ ≠ 1 is a warning and not a sentence: a highway network with λ = 0.9975 trains as well as a ResNet, and DeepNorm multiplies by 2.8 and normalises. A
skip whose interval reaches the limit is no finding, and one whose highway has norms on the trunk and a measured gain between 0.1 and 10 is a note. λ
and the layers' gradients are two findings: a pre-LN transformer with λ = 0.5 shows in no norm.

An unreached parameter is a warning, and an error where most of what should train is unreached. A highway of a single skip is judged by its λ alone. A
starved or exploding highway is a warning at most where its branches make up for it (with them between 0.03 and 30 of the gradient arrives), where it is one
recurrent cell called many times, and where its λ are 1 wherever they are defined and its trunk has weights; where slicing or concatenation routes all of the
gradient past it that is a note.

What the limits do to published models, to planted faults and to networks that were trained is on the page of the [calibration](calibration.md).
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(f"\n{entry(rule)}" for rule in RULES.values())


if __name__ == "__main__":
    sys.stdout.write(page())
