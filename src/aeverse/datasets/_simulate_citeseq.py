"""Simulated RNA and surface proteins of the same cells, whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse._arguments import checked
from aeverse.datasets._assemble import assemble

if TYPE_CHECKING:
    from mudata import MuData

N_GENES, N_ANTIBODIES_WITHOUT_TARGET = 600, 2
# Each type: its lineage, its share of the cells, and the proteins on its surface.
TYPES: dict[str, tuple[str, float, tuple[str, ...]]] = {
    "CD4 naive T": ("T", 0.22, ("CD3", "CD4", "CD45RA")),
    "CD4 memory T": ("T", 0.18, ("CD3", "CD4", "CD45RO")),
    "CD8 naive T": ("T", 0.12, ("CD3", "CD8", "CD45RA")),
    "CD8 memory T": ("T", 0.10, ("CD3", "CD8", "CD45RO")),
    "NK": ("NK", 0.10, ("CD16", "CD45RA", "CD56")),
    "B": ("B", 0.12, ("CD19", "CD20", "CD45RA")),
    "CD14 monocyte": ("monocyte", 0.11, ("CD11c", "CD14", "CD45RO")),
    "CD16 monocyte": ("monocyte", 0.05, ("CD11c", "CD16")),
}


@checked
def simulate_citeseq(n_obs: int = 800, *, random_state: int = 0) -> MuData:
    """Simulate CITE-seq of blood cells: RNA that separates lineages, and proteins that separate the types within them.

    Eight types belong to four lineages. Lineages differ strongly in RNA, and types of one lineage in 5 % of the genes.
    Each protein count is the sum of background, which follows the cell's ambient antibody, and, if the cell carries the
    protein, of foreground. Two antibodies have no target in these cells. Counts are negative binomial.

    Parameters
    ----------
    n_obs
        Cells.
    random_state
        Seed.

    Returns
    -------
    MuData with ``rna`` (n_obs x 600) and ``prot`` (n_obs x 13), counts in ``X`` (CSR). The truth is in
    ``obs["cell_type"]``, ``obs["lineage"]``, ``mdata["rna"].layers["mean"]`` (expected counts) and
    ``mdata["prot"].layers["carried"]`` (whether the cell carries the protein).

    See Also
    --------
    aeverse.datasets.simulate_counts : RNA alone, with genes that are truly absent.
    aeverse.tl.multimodal_embed, aeverse.tl.predict_modality, aeverse.tl.protein_foreground

    Examples
    --------
    >>> import aeverse as ae
    >>> mdata = ae.datasets.simulate_citeseq(100)
    >>> mdata["rna"].shape, mdata["prot"].shape
    ((100, 600), (100, 13))
    """
    from anndata import AnnData

    rng = np.random.default_rng(random_state)
    names, shares = list(TYPES), np.array([share for _, share, _ in TYPES.values()])
    types = rng.choice(len(TYPES), size=n_obs, p=shares)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(types, names),
            "lineage": pd.Categorical([TYPES[names[t]][0] for t in types]),
        },
        index=[f"cell {i}" for i in range(n_obs)],
    )
    rna_counts, mean = _rna(types, rng)
    rna = AnnData(rna_counts, obs=obs[[]].copy(), var=pd.DataFrame(index=[f"gene {g}" for g in range(N_GENES)]))
    rna.layers["mean"] = mean
    proteins, prot_counts, carried = _proteins(types, rng)
    prot = AnnData(prot_counts, obs=obs[[]].copy(), var=pd.DataFrame(index=proteins))
    prot.layers["carried"] = carried
    return assemble({"rna": rna, "prot": prot}, obs)


def _rna(types: np.ndarray, rng: np.random.Generator) -> tuple[sp.csr_matrix, np.ndarray]:
    """Counts of genes and their means: folds of the lineage, of few genes also of the type, and of a cell's own program."""
    lineages = [lineage for lineage, _, _ in TYPES.values()]
    by_lineage = {
        lineage: rng.lognormal(0, 1.0, N_GENES) ** (rng.random(N_GENES) < 0.3) for lineage in dict.fromkeys(lineages)
    }
    by_type = rng.lognormal(0, 0.8, (len(TYPES), N_GENES)) ** (rng.random((len(TYPES), N_GENES)) < 0.05)
    folds = np.stack([by_lineage[lineage] for lineage in lineages]) * by_type
    program, loadings = rng.normal(size=len(types)), rng.normal(0, 0.4, N_GENES) * (rng.random(N_GENES) < 0.15)
    mean = rng.lognormal(0, 1.5, N_GENES) * folds[types] * np.exp(np.outer(program, loadings))
    mean *= rng.lognormal(np.log(900), 0.35, len(types))[:, None] / mean.sum(1, keepdims=True)
    return _negative_binomial(mean, 5.0, rng), mean.astype(np.float32)


def _proteins(types: np.ndarray, rng: np.random.Generator) -> tuple[list[str], sp.csr_matrix, np.ndarray]:
    """Names, counts, and which cell carries which protein."""
    targets = sorted({protein for _, _, surface in TYPES.values() for protein in surface})
    names = [*targets, *(f"IgG{i + 1}" for i in range(N_ANTIBODIES_WITHOUT_TARGET))]
    surface = np.array([[protein in proteins for protein in names] for _, _, proteins in TYPES.values()])
    carried = surface[types]
    ambient = rng.lognormal(0, 0.4, len(types))[:, None]
    background = rng.lognormal(np.log(8), 0.5, len(names)) * ambient
    foreground = rng.lognormal(np.log(40), 0.5, len(names)) * rng.lognormal(0, 0.5, (len(types), 1)) * carried
    counts = _negative_binomial(background, 4.0, rng) + _negative_binomial(foreground, 4.0, rng)
    return names, sp.csr_matrix(counts), carried


def _negative_binomial(mean: np.ndarray, dispersion: float, rng: np.random.Generator) -> sp.csr_matrix:
    return sp.csr_matrix(rng.poisson(rng.gamma(dispersion, mean / dispersion)), dtype=np.float32)
