#!/usr/bin/env bash
# Style and types, with the ruff and mypy that the extra "test" pins, in the environment that the README's test command makes.
# Usage: bash ci/check.sh; BIN names another folder of programs (default: .venv/bin).
set -euo pipefail
cd "$(dirname "$0")/.."
bin="${BIN:-.venv/bin}"
"$bin/python" -m ruff check .
"$bin/python" -m ruff format --check .
"$bin/python" -m mypy
