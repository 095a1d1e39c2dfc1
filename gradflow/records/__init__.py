"""The frozen records of a report. Imports no torch.

A measured value that is not defined is None, and its field's name stands in the record's `undefined` with the reason; the two can never disagree.
"""

from gradflow.records.base import GRAVITY, VERDICTS, Form, Kind, Location, Measured, Severity, Status, Verdict
from gradflow.records.checks import CHECKS_SCHEMA, Checks, Outcome, Silenced, Trouble
from gradflow.records.highways import ForkSpectrum, Highway, Segment
from gradflow.records.history import HISTORY_SCHEMA, Entry, History, LayerTrack, Missed, Noted, SkipTrack, Turn
from gradflow.records.layers import TIMES, Layer, Parameter
from gradflow.records.report import SCHEMA, Finding, Limits, Nonfinite, Opaque, Report, verdict
from gradflow.records.run import Environment, Input, Loss, Run, SampleShare, Target
from gradflow.records.skips import Channel, Channels, Probe, Skip, Streams

__all__ = [
    "CHECKS_SCHEMA",
    "GRAVITY",
    "HISTORY_SCHEMA",
    "SCHEMA",
    "TIMES",
    "VERDICTS",
    "Channel",
    "Channels",
    "Checks",
    "Entry",
    "Environment",
    "Finding",
    "ForkSpectrum",
    "Form",
    "Highway",
    "History",
    "Input",
    "Kind",
    "Layer",
    "LayerTrack",
    "Limits",
    "Location",
    "Loss",
    "Measured",
    "Missed",
    "Nonfinite",
    "Noted",
    "Opaque",
    "Outcome",
    "Parameter",
    "Probe",
    "Report",
    "Run",
    "SampleShare",
    "Segment",
    "Severity",
    "Silenced",
    "Skip",
    "SkipTrack",
    "Status",
    "Streams",
    "Target",
    "Trouble",
    "Turn",
    "Verdict",
    "verdict",
]
