"""The table of rules: code, name, limits, and what to tell the user. The only place where a threshold stands."""

from gradflow.rules.table import MOST_DECADES, RULES, Rule

__all__ = ["MOST_DECADES", "RULES", "Rule"]
