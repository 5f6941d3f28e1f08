#!/usr/bin/env bash
# The test suite on the newest release of everything, in an environment of its own.
# Usage: bash ci/newest.sh [arguments of pytest]; PYTHON names the interpreter (default: python3.13).
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-python3.13}" -m venv --clear .venv-newest
.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager --editable ".[test]"
.venv-newest/bin/python ci/versions.py
.venv-newest/bin/python -m pytest "$@"
