#!/usr/bin/env bash
# The test suite on the lowest supported versions (ci/lowest.txt), in an environment of its own.
# Usage: bash ci/lowest.sh [arguments of pytest]; PYTHON names the interpreter (default: python3.11).
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-python3.11}" -m venv --clear .venv-lowest
.venv-lowest/bin/pip install --quiet --constraint ci/lowest.txt --editable ".[test]"
.venv-lowest/bin/python ci/versions.py
.venv-lowest/bin/python -m pytest "$@"
