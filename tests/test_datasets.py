import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

import aeverse as ae


@pytest.mark.filterwarnings("ignore")
def test_pbmc68k_counts_are_the_only_integers_that_give_the_bundled_values(pbmc):
    reduced = sc.datasets.pbmc68k_reduced()
    logged = sp.csr_matrix(reduced.raw.X)
    counts = pbmc.X.toarray()
    assert counts.shape == (700, 765)
    assert counts.min() == 0
    assert (counts == np.rint(counts)).all()
    library = reduced.obs["n_counts"].to_numpy(np.float64)[:, None]
    bundled = logged.toarray()

    def normalised(x):
        return np.log1p(x / library * 1e4)

    rounding = 5e-4 + 1e-6  # the file keeps three decimals, as float32
    assert (abs(normalised(counts) - bundled) <= rounding).all()
    assert ((bundled > 0) == (counts > 0)).all()
    for neighbour in (counts - 1, counts + 1):
        apart = abs(normalised(np.maximum(neighbour, 0)) - bundled)[counts > 0]
        assert (apart > 2 * rounding).all()
    assert (counts.sum(1) <= library.ravel()).all()


def test_simulated_counts_follow_their_truth():
    adata = ae.datasets.simulate_counts(2000, 100, n_types=3, dispersion=4.0, random_state=1)
    counts, rate, mean = adata.X.toarray(), adata.layers["rate"], adata.layers["mean"]
    assert (counts[mean == 0] == 0).all()
    assert 0.2 < (mean == 0).mean() < 0.4
    assert counts.sum() == pytest.approx(mean.sum(), rel=0.05)
    expressed = mean > 1
    assert np.square(counts - rate)[expressed].mean() == pytest.approx(rate[expressed].mean(), rel=0.1)  # Poisson
    variance = np.square(rate - mean)[expressed] / mean[expressed] ** 2
    assert variance.mean() == pytest.approx(1 / 4, rel=0.1)  # gamma of shape 4


def test_simulated_counts_depend_on_the_seed_alone(random_states):
    before = random_states()
    a, b, c = (ae.datasets.simulate_counts(50, 20, random_state=s) for s in (0, 0, 1))
    assert (a.X != b.X).nnz == 0
    assert (a.X != c.X).nnz > 0
    assert random_states() == before
