"""What a report shows of a cohort of patients: `subtypes`, `survival` and `associations`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from aeverse._report._html import Content, Run, picture, section, table
from aeverse._report._matrix import embedding_section

COUNTED = {"used": "patients", "events": "events"}  # others count patients who were left out


def subtypes(run: Run) -> Content:
    """Size, stability and confidence of each subtype, the consensus matrix, and the embedding."""
    from aeverse import pl

    record = run.record
    clusters, confidence = record["clusters"], run.data.obs[f"{run.key}_confidence"]
    tiles = [(f"{len(clusters)}", "subtypes" if len(clusters) > 1 else "subtype"), _patients(run)]
    tiles += [
        (f"{clusters['stability'].min():.2f}", "stability of the least stable subtype"),
        (f"{confidence.mean():.2f}", "mean agreement of the resamples"),
    ]
    text = (
        "<p>The stability is the mean Jaccard index between a subtype and its best match in resamples of the patients: "
        "below 0.6 it is not to be trusted. The confidence is the mean share of the resamples that voted for a patient's "
        "subtype.</p>"
    )
    image = picture(pl.subtypes, run.data, key=run.key, caption="Consensus matrix, and stability by number of subtypes")
    numbers = (
        "<p>For each number of subtypes the stability, beside that in cohorts without structure (reference), and how much "
        "more compact the subtypes are than there.</p>"
    )
    sections = [
        section("Subtypes", text, table(clusters, index="subtype"), image),
        embedding_section(run, str(record["params"]["use_rep"]), run.key, what="patient"),
        section("The number of subtypes", numbers, *_curves(record)),
    ]
    return Content(tiles, sections, record)


def _curves(record: Mapping[str, Any]) -> list[str]:
    """The table on the number of subtypes; of a linear embedding, too, where there the evidence was judged."""
    if record.get("evidence") is None:
        return [table(record["curve"])]
    return [table(record["curve"]), "<h3>In the linear components of the data</h3>", table(record["evidence"])]


def survival(run: Run) -> Content:
    """Held-out scores of the predictors, curves and tests of the groups, and hazard ratios."""
    from aeverse import pl

    record = run.record
    sections = []
    tiles = [(f"{n:,}", COUNTED.get(name, f"patients left out: {name}")) for name, n in record["patients"].items() if n]
    if "held_out" in record:
        scores = record["held_out"].groupby("predictors", sort=False)[["c_index", "integrated_brier"]].mean()
        sections.append(_heldout_section(scores, record["calibration"]))
        use_rep = str(record["params"]["use_rep"])
        tiles.insert(0, (f"{scores.loc[use_rep, 'c_index']:.3f}", f"held-out C-index of {use_rep}"))
    if "kaplan_meier" in record:
        curves = picture(pl.kaplan_meier, run.data, key=run.key, caption="Kaplan-Meier curves")
        tests = f"<h3>Pairs, log-rank test</h3>{table(record['pairwise'])}" if "pairwise" in record else ""
        sections.append(section("Survival by group", curves, table(record["medians"], index="group"), tests))
    if len(record["cox"]):  # a single group has none
        ratios = picture(pl.forest, run.data, key=run.key, caption="Hazard ratios")
        sections.append(section("Hazard ratios", ratios, table(record["cox"])))
    return Content(tiles, sections, record)


def _heldout_section(scores: pd.DataFrame, calibration: pd.DataFrame) -> str:
    text = (
        "<p>Mean over the folds, of patients whom the Cox model has not seen. C-index: 1 is perfect, 0.5 is chance. "
        "Integrated Brier score: 0 is perfect; compare it with that of <i>none</i>, the Kaplan-Meier curve of the others.</p>"
    )
    calibrated = (
        "<h3>D-calibration</h3><p>A small p-value: the predicted probabilities of survival do not come true.</p>"
        + table(calibration, index="predictors")
    )
    return section("Held-out patients", text, table(scores, index="predictors"), calibrated)


def associations(run: Run) -> Content:
    """The test of each column."""
    from aeverse import pl

    record = run.record
    tests = record["tests"].sort_values("effect", ascending=False, kind="stable")
    significant = int((tests["p_bh"] <= 0.05).sum())
    tiles = [(f"{significant} of {len(tests)}", "columns associated, corrected p of at most 0.05"), _patients(run)]
    text = "<p>The effect is Cramér's V, of numbers epsilon squared; p_bh is corrected by Benjamini and Hochberg.</p>"
    image = picture(pl.associations, run.data, key=run.key, caption="Effect of each column")
    groupby = str(record["params"]["groupby"])
    return Content(tiles, [section(f"Associated with {groupby}", text, image, table(tests, index="column"))], record)


def _patients(run: Run) -> tuple[str, str]:
    return f"{run.data.n_obs:,}", "patients"
