"""`gradflow rule`: the table of rules, or all that is to be said of one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gradflow.cli.output import show


def rule(
    code: Annotated[str | None, typer.Argument(help="A code (GF203), its beginning (GF2) or a name (transforming-skip); all of them without it.")] = None,
) -> None:
    """Explain a rule: what it does, why it matters, an example, the fix and the limits. Without a code list them all.

    Exit codes: 0, 2 there is no such rule.
    """
    from gradflow.render import rules
    from gradflow.rules import RULES, matching

    if code is None:
        terminal = sys.stdout.isatty()  # a line each where grep or a pager reads them
        show(lambda width, color: rules.listing([*RULES.values()], width=width if terminal else None, color=color), sys.stdout)
        return
    found = [RULES[one] for one in matching(RULES, code, "gradflow rule")]
    show(lambda width, color: rules.entries(found, width=width, color=color), sys.stdout)
