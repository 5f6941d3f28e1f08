#!/usr/bin/env bash
# The licenses of everything that an installation brings; ends with status 1 where one forbids what BSD-3-Clause allows users.
# Usage: bash ci/licenses.sh; BIN names another folder of programs, with pip-licenses (default: .venv/bin).
# igraph and leidenalg, which scanpy's Leiden needs, are GPL: installed beside us, never copied into us.
set -euo pipefail
cd "$(dirname "$0")/.."
bin="${BIN:-.venv/bin}"
"$bin/pip-licenses" --ignore-packages igraph leidenalg texttable pip-licenses --partial-match \
  --fail-on "AGPL;Affero;GNU General Public License v3;GPL-3.0;Proprietary;Commercial"
