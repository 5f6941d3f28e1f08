"""What a model is, in words: for the command line, and as the page of a shared model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aeverse.models._autoencoder import Autoencoder
from aeverse.models._multimodal import MultimodalAutoencoder

SHOWN = 8  # names of features, and of categories of a label


def facts(model: Autoencoder | MultimodalAutoencoder) -> dict[str, str]:
    """What a fitted model was trained on and how well it predicts what was held out, by topic."""
    specific = _of_matrix(model) if isinstance(model, Autoencoder) else _of_modalities(model)
    batches = f"{_some(model.batches)} ({model.batch_key})" if model.batches else "none"
    covariates = ", ".join(model.covariates) or "none"
    labels = [f"{name} ({_some(values.categories)})" for name, values in model.labels.items()]
    entries = {"model": repr(model), **specific, "batches": batches, "covariates": covariates}
    entries["labels"] = "; ".join(labels) or "none"
    if model.saved_with is not None:
        entries["versions"] = ", ".join(f"{package} {version}" for package, version in model.saved_with.items())
    return entries


def _of_matrix(model: Autoencoder) -> dict[str, str]:
    settings, names = model.settings, model.var_names
    best = np.argsort(-np.nan_to_num(model.deviance_explained, nan=-np.inf), kind="stable")[:SHOWN]
    return {
        "trained on": f"{model.fitted.n_samples:,} samples x {len(names):,} features",
        "features": f"{_some(names)}; the encoder reads {len(model.inputs):,}",
        "likelihood": settings.likelihood,
        "regularizer": str(settings.regularizer),
        "embedding": f"{model.n_code} dimensions: {settings.n_models} networks of {settings.n_latent} each",
        "held-out deviance explained": f"{model.heldout_deviance_explained:.4f}",
        "best predicted features": ", ".join(f"{names[i]} {model.deviance_explained[i]:.2f}" for i in best),
    }


def _of_modalities(model: MultimodalAutoencoder) -> dict[str, str]:
    targets = model.fitted.targets
    shapes = [f"{m} ({kind}, {len(targets[m].names):,} features)" for m, kind in model.kinds.items()]
    explained = [f"{m} {share:.4f}" for m, share in model.variance_explained.items()]
    return {
        "trained on": f"{len(model.fitted.names):,} samples: {', '.join(shapes)}",
        "features": "; ".join(f"{m}: {_some(targets[m].names)}" for m in model.kinds),
        "recipe": model.recipe,
        "modality weights": ", ".join(f"{m} {weight:.2f}" for m, weight in model.modality_weights.items()),
        "held-out variance explained": ", ".join(explained),
    }


def _some(names) -> str:
    names = [str(name) for name in pd.Index(names)]
    return ", ".join(names[:SHOWN]) + (f", … ({len(names):,})" if len(names) > SHOWN else "")


CARD = """\
---
license: {license}
library_name: aeverse
tags:
- single-cell
- autoencoder
- {data_class}
---

# {title}

{description}

| | |
|---|---|
{table}

## Use

```python
import aeverse as ae

model = ae.models.load("hf://{title}")
ae.tl.map_query({data}, model)  # embedding, and how typical of the training data each sample is
```

`pip install "aeverse[hub]"` for the download. Features are matched by name. Loading runs no code from the file.

## What the file holds

The weights, the embeddings of up to 5,000 training samples, and the categorical columns of their `obs`{names}. No measured values
of single samples are in it{scores}.

## Limits

The model knows samples like those that it was trained on. `obs["ae_typicality"]` is small for others, whose labels and denoised
values are not to be relied on. Held-out figures are of molecules or entries of the training samples, not of other studies.
"""


def model_card(model: Autoencoder | MultimodalAutoencoder, title: str, *, license: str, description: str = "") -> str:
    """The README.md of a shared model: metadata of the hub, what the model is, how to use it, what its file reveals."""
    one_matrix = isinstance(model, Autoencoder)
    rows = [f"| {topic} | {_cell(text)} |" for topic, text in facts(model).items()]
    return CARD.format(
        license=license,
        data_class="anndata" if one_matrix else "mudata",
        title=title,
        description=description or f"A fitted `aeverse.models.{type(model).__name__}`.",
        table="\n".join(rows),
        data="adata" if one_matrix else "mdata",
        names="" if one_matrix else ", their names",
        scores="" if one_matrix else ", but their principal components are",
    )


def _cell(text: str) -> str:
    """Text of a table's cell: a line, in which no character ends the cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
