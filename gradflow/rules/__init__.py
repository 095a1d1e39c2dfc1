"""The rules: what is a finding, at which limit, what to do, and how much it counts."""

from gradflow.rules.rule import MOST_DECADES, Rule, Rules, choose, matching
from gradflow.rules.severity import rank, severity, worst_first
from gradflow.rules.table import EVERY, RULES

__all__ = ["EVERY", "MOST_DECADES", "RULES", "Rule", "Rules", "choose", "matching", "rank", "severity", "worst_first"]
