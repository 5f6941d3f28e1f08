"""The code of the page "How many clusters?" runs, and shows what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "clusters.md"


@pytest.mark.filterwarnings("ignore")
def test_the_score_rises_and_falls_with_the_resolution(capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL))
    exec(code, {})
    scores = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(scores) == 5
    assert max(scores) > scores[0] + 0.003
    assert max(scores) > scores[-1] + 0.003
