"""The house's own limits, where no linter knows them."""

import ast
from pathlib import Path

import pytest

import gradflow

FILES = sorted(Path(gradflow.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(FILES[0].parent)))
def test_a_source_file(file):
    """It opens with its law, has at most 350 lines, and no function body of more than 45 lines."""
    text = file.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "the module opens with its law"
    assert len(text.splitlines()) <= 350
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            assert body[-1].end_lineno - body[0].lineno < 45, node.name
