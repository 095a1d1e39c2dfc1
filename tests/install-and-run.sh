#!/usr/bin/env bash
# Installs gradflow with everything that its tests need into the active virtual environment, and runs them. Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
pip install --quiet --constraint tests/constraints.txt --editable ".[test]"
# torchvision's wheels name one exact torch, and the others name torchvision: all are installed without their requirements, which ".[test]" holds.
pip install --quiet --constraint tests/constraints.txt --no-deps torchvision timm segmentation-models-pytorch
python -m pytest --numprocesses 2 --dist loadgroup "$@"
