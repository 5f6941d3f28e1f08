#!/usr/bin/env bash
# Wheel and sdist, built and tried outside the checkout: the wheel by its command, the sdist by the tests that it carries.
# Usage: bash ci/package.sh [arguments of pytest]; PYTHON names an interpreter with the package's dependencies, pytest and build
# (default: .venv/bin/python). Nothing of the checkout is imported: both are unpacked into a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH
"$python" -m build --outdir "$work" . >/dev/null
"$python" -m pip install --quiet --no-deps --target "$work/wheel" "$work"/*.whl
tar xzf "$work"/*.tar.gz -C "$work"
cd "$work"/aeverse-*/
export PYTHONPATH="$work/wheel"
"$python" -c "import aeverse, os; assert aeverse.__file__.startswith('$work'), aeverse.__file__"
"$python" -m aeverse --version
"$python" -m aeverse demo --out "$work/demo" >/dev/null
test -s "$work/demo/report.html"
"$python" -m pytest "$@"
