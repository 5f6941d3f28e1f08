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

    def normalized(x):
        return np.log1p(x / library * 1e4)

    rounding = 5e-4 + 1e-6  # the file keeps three decimals, as float32
    assert (abs(normalized(counts) - bundled) <= rounding).all()
    assert ((bundled > 0) == (counts > 0)).all()
    for neighbor in (counts - 1, counts + 1):
        apart = abs(normalized(np.maximum(neighbor, 0)) - bundled)[counts > 0]
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


def test_simulated_citeseq_follows_its_truth():
    mdata, again = (ae.datasets.simulate_citeseq(2000, random_state=1) for _ in range(2))
    assert (mdata["rna"].X != again["rna"].X).nnz == 0
    assert (mdata["prot"].X != again["prot"].X).nnz == 0
    mean, counts = mdata["rna"].layers["mean"], mdata["rna"].X.toarray()
    assert counts.sum() == pytest.approx(mean.sum(), rel=0.02)
    expressed = mean > 1
    scaled = (np.square(counts - mean) / (mean + mean**2 / 5))[expressed]  # negative binomial of dispersion 5
    assert scaled.mean() == pytest.approx(1, rel=0.1)
    proteins = mdata["prot"]
    carried, cell_type = proteins.layers["carried"], mdata.obs["cell_type"]
    assert carried[:, list(proteins.var_names).index("CD8")].tolist() == cell_type.str.contains("CD8").tolist()
    levels = proteins.X.toarray()
    for j, name in enumerate(proteins.var_names):
        if name.startswith("IgG"):
            assert not carried[:, j].any()
        else:
            assert levels[carried[:, j], j].mean() > 2 * levels[~carried[:, j], j].mean()


def test_simulated_cohort_follows_its_truth():
    mdata = ae.datasets.simulate_cohort(3000, random_state=1)
    again = ae.datasets.simulate_cohort(3000, random_state=1)
    assert all(np.array_equal(mdata[name].X, again[name].X) for name in mdata.mod)
    subtype = mdata.obs["true_subtype"]
    for modality in mdata.mod.values():
        labels = subtype.loc[modality.obs_names]
        for name in "ABCD":
            of_subtype = modality.X[labels == name].mean(0)
            others = np.stack([modality.X[labels == o].mean(0) for o in "ABCD" if o != name])
            furthest = abs(of_subtype - others).min(0)  # from the nearest other subtype
            drivers = modality.var["driver_of"] == name
            assert furthest[drivers].min() > furthest[modality.var["driver_of"] == ""].mean() * 2
    deaths_per_month = (
        mdata.obs.groupby(subtype, observed=True)["OS_event"].sum()
        / mdata.obs.groupby(subtype, observed=True)["OS_time"].sum()
    )
    assert (deaths_per_month / deaths_per_month["A"]).tolist() == pytest.approx([1, 1, 2, 4], rel=0.2)
    assert len(mdata["cnv"]) == 2000
