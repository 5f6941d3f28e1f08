"""Cells a second of training on one core: ours (one member and three), scVI's, and the bare matrix products, in one run.

``python benchmarks/step.py`` prints a table and, with ``--write``, writes ``results/step.csv``. All take turns, round by
round, on one thread; seconds are those of the processor, so that a busy machine counts little, and a figure is the median
over the rounds. ``guard.py`` runs the same.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse import nn, train

RESULTS = Path(__file__).parent / "results" / "step.csv"
N_GENES, N_INPUTS, N_HIDDEN, N_LATENT, BATCH_SIZE = (2_000, 20_000), 3_000, 128, 32, 128


def counts(n_cells: int, n_genes: int, seed: int = 0) -> sp.csr_matrix:
    """Poisson counts on log-normal profiles, about a tenth of the entries above zero."""
    rng = np.random.default_rng(seed)
    profile = rng.lognormal(0, 2, n_genes)
    library = rng.lognormal(np.log(n_genes / 3), 0.3, n_cells)
    blocks = [rng.poisson(size * profile / profile.sum()) for size in library]
    return sp.csr_matrix(np.array(blocks, np.float32))


def ours(x: sp.csr_matrix, n_models: int) -> Callable[[int], None]:
    """A function that trains for some steps."""
    generator, library = torch.Generator().manual_seed(0), np.asarray(x.sum(1), np.float32).ravel()
    molecules = np.asarray(x.sum(0)).ravel()
    inputs = np.sort(np.argsort(-molecules)[:N_INPUTS])
    samples = train.Samples(x, library=library, input_features=inputs if len(inputs) < x.shape[1] else None)

    def member() -> nn.AutoencoderNet:
        scale = torch.ones(len(inputs))
        layer = nn.CountInput(0.3 * scale, scale, float(np.median(library)))
        encoder = nn.Encoder(layer, len(inputs), (N_HIDDEN,), N_LATENT, generator=generator)
        bias = torch.log(torch.as_tensor(np.maximum(molecules, 0.5) / molecules.sum(), dtype=torch.float32))
        decoder = nn.Decoder(N_LATENT, (), x.shape[1], bias=bias, prior_precision=300.0, generator=generator)
        decoder.information = torch.as_tensor(molecules, dtype=torch.float32)[:, None]
        likelihood = nn.NegativeBinomial(x.shape[1])
        return nn.AutoencoderNet(encoder, decoder, likelihood, nn.Thinning(), prior_weight=1 / x.shape[0])

    ensemble = nn.Ensemble([member() for _ in range(n_models)])
    batches = samples.shuffled(np.random.default_rng(0), BATCH_SIZE, generator)

    def run(n_steps: int) -> None:
        train.train(ensemble, batches, lambda: 0.0, train.Schedule(n_steps, n_steps), progress=False)

    return run


def products(x: sp.csr_matrix) -> Callable[[int], None]:
    """The matrix products of one member and their gradients, on dense tensors that are there already."""
    n_genes, n_inputs = x.shape[1], min(x.shape[1], N_INPUTS)
    batch, first = torch.rand(BATCH_SIZE, n_inputs), torch.rand(n_inputs, N_HIDDEN)
    code, loadings = torch.rand(BATCH_SIZE, N_LATENT), torch.rand(n_genes, N_LATENT)
    hidden, means = torch.rand(BATCH_SIZE, N_HIDDEN), torch.rand(BATCH_SIZE, n_genes)

    def run(n_steps: int) -> None:
        for _ in range(n_steps):
            batch @ first, batch.T @ hidden
            code @ loadings.T, means.T @ code, means @ loadings

    return run


def scvi(x: sp.csr_matrix) -> Callable[[int], None]:
    """scVI's training with its own defaults, held-out cells and all."""
    import logging

    import anndata as ad
    import scvi as tools

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    tools.settings.seed = 0
    adata = ad.AnnData(x)
    tools.model.SCVI.setup_anndata(adata)
    model = tools.model.SCVI(adata)

    def run(n_steps: int) -> None:
        epochs = max(1, round(n_steps / (x.shape[0] / BATCH_SIZE)))
        model.train(
            max_epochs=epochs,
            train_size=1.0,
            accelerator="cpu",
            enable_progress_bar=False,
            logger=False,
            enable_checkpointing=False,
        )

    return run


def measure(n_genes: int, n_cells: int, n_steps: int, n_rounds: int) -> dict[str, float]:
    """Cells a second, the median over the rounds."""
    x = counts(n_cells, n_genes)
    runs = {"one member": ours(x, 1), "three members": ours(x, 3), "scVI": scvi(x), "products": products(x)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(n_rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run(n_steps)
            if i:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    return {name: n_steps * BATCH_SIZE / float(np.median(values)) for name, values in seconds.items()}


def table(n_rounds: int = 5, n_cells: int = 1_280, n_steps: int = 10) -> pd.DataFrame:
    """Cells a second and the ratios, one row for each number of genes."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rows = []
    for n_genes in N_GENES:
        speed = measure(n_genes, n_cells, n_steps * max(1, 20_000 // n_genes // 2), n_rounds)
        ratios = {
            "ours / scVI": speed["one member"] / speed["scVI"],
            "products / ours": speed["products"] / speed["one member"],
            "three members / scVI": speed["three members"] / speed["scVI"],
        }
        rows.append({"genes": n_genes, **{k: round(v) for k, v in speed.items()}, **ratios})
    return pd.DataFrame(rows).round(2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write results/step.csv")
    args = parser.parse_args()
    found = table(args.rounds)
    print(found.to_string(index=False))
    if args.write:
        found.to_csv(RESULTS, index=False)
