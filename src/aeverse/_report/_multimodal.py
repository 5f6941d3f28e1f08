"""What a report shows of several modalities: `multimodal`, `predict` and `foreground`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse._report._html import Content, Run, grouping, picture, section, shown, table
from aeverse._report._matrix import dimensions_tile, embedding_section

LISTED = 30  # features in a table
LEVEL = 0.5  # probability from which a count is foreground


def multimodal(run: Run) -> Content:
    """What each modality gives to the embedding, and the embedding."""
    sections = [_modalities_section(run, run.record), embedding_section(run, run.key, what="sample")]
    return Content(
        [*_sizes(run), dimensions_tile(run, run.key)], [*sections, *_training_sections(run, run.key)], run.record
    )


def predict(run: Run) -> Content:
    """Predicted against measured values, and the mean prediction of each feature."""
    from aeverse import pl

    target = str(run.arguments["target"])
    key = f"{run.key}_{target}"
    record = _slots.read_record(run.data, key)
    means, sds = run.data.obsm[key], run.data.obsm[f"{key}_sd"]
    measured = run.data[target].n_obs if target in run.data.mod else 0
    tiles = [(f"{means.shape[1]:,}", f"features of {target} predicted"), *_sizes(run)]
    tiles.append((f"{measured:,}", f"samples in which {target} was measured"))
    image = ""
    if measured:
        image = "<p>The features that are predicted best, in the samples in which they were measured.</p>" + picture(
            pl.predicted, run.data, target, key=run.key, ncols=3, caption="Predicted and measured values"
        )
    features = pd.DataFrame({"mean prediction": means.mean(), "mean standard deviation": sds.mean()})
    listed = section(f"Predictions of {target}", image, table(features.head(LISTED), index="feature"), _more(features))
    return Content(tiles, [listed, _modalities_section(run, record), *_training_sections(run, key)], record)


def foreground(run: Run) -> Content:
    """For each protein the mean count of background and foreground, and the share of the cells that carry it."""
    data = next(adata for adata in run.data.mod.values() if run.key in adata.uns.get("ae", {}))
    record = _slots.read_record(data, run.key)
    probability = np.asarray(data.layers[run.key])
    known = np.maximum(np.isfinite(probability).sum(0), 1)
    proteins = pd.DataFrame(
        {
            "background": data.var[f"{run.key}_background"],
            "foreground": data.var[f"{run.key}_mean"],
            "share of cells with foreground": (probability > LEVEL).sum(0) / known,
        }
    )
    share = float((probability > LEVEL).sum() / known.sum())
    tiles = [(f"{share:.1%}", "of the counts are foreground"), (f"{data.n_obs:,}", "cells")]
    tiles.append((f"{data.n_vars:,}", f"proteins in {record['params']['modality']}"))
    text = (
        "<p>Mean count of each protein in the background and in the foreground, and the share of the cells whose count is "
        f"foreground with a probability above {LEVEL:g}. Where the two means are close, the protein has no foreground to "
        "speak of, or no background.</p>"
    )
    return Content(tiles, [section("Proteins", text, table(proteins, index="protein"))], record)


# ---- parts -----------------------------------------------------------------------------------------------------
def _sizes(run: Run) -> list[tuple[str, str]]:
    return [(f"{run.data.n_obs:,}", "samples"), (f"{len(run.data.mod)}", "modalities")]


def _modalities_section(run: Run, record: Mapping[str, Any]) -> str:
    """Kind, weight and held-out variance explained of each modality, as far as the method says them."""
    from aeverse import pl

    columns = {"kind": "kinds", "weight": "modality_weights", "held-out variance explained": "variance_explained"}
    values = {name: dict(record[key]) for name, key in columns.items() if key in record}
    modalities = pd.DataFrame(values).reindex(list(record["kinds"]))
    modalities.insert(0, "samples", [run.data[m].n_obs if m in run.data.mod else 0 for m in modalities.index])
    weights = _slots.side_key(run.key, "weights")
    text, image = "", ""
    if "variance_explained" in record:
        text = (
            "<p>Some entries of each modality were set aside before training; their variance that the model explains is "
            "the last column. The weight is the share of the modality in the embedding.</p>"
        )
    if weights in run.data.obsm:
        by = grouping(run.data)
        image = picture(pl.modality_weights, run.data, groupby=by, key=weights, caption="Modality weights")
    return section("Modalities", text, table(modalities, index="modality"), image)


def _training_sections(run: Run, key: str) -> list[str]:
    from aeverse import pl

    if "history" not in _slots.read_record(run.data, key):
        return []
    return [section("Training", picture(pl.history, run.data, key=key, caption="Training curves"))]


def _more(features: pd.DataFrame) -> str:
    n_more = len(features) - LISTED
    return f"<p class=soft>And {shown(n_more)} more.</p>" if n_more > 0 else ""
