"""Real architectures from public libraries, each profiled and compared with labels that were written from its source or paper.

`python -m tests.corpus` runs all of it and writes docs/coverage.md.
"""
