"""Survival against lifelines and against simulated truth; associations against scipy."""

import itertools
import sys

import anndata
import matplotlib
import mudata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import trapezoid

import aeverse as ae
from aeverse.tl._cox import COVARIATE_PENALTY, predict, ridge_cox
from aeverse.tl._multiple_testing import benjamini_hochberg, holm
from aeverse.tl._survival_scores import Curves, d_calibration, integrated_brier, survival_curves

matplotlib.use("Agg")
lifelines = pytest.importorskip("lifelines", reason='lifelines is not installed: pip install "aeverse[survival]"')

KEYS = {"time_key": "months", "event_key": "dead"}


def simulated(n=300, n_dims=6, *, effect=1.0, seed=0):
    """Patients whose log hazard is `effect` times their first code and 0.05 a year of age; group C lives longest."""
    rng = np.random.default_rng(seed)
    code = rng.normal(size=(n, n_dims))
    age = rng.uniform(40, 80, n)
    death = rng.exponential(30 * np.exp(-effect * code[:, 0] - 0.05 * (age - 60)))
    censored = rng.exponential(60, n)
    obs = pd.DataFrame(
        {
            "months": np.minimum(death, censored),
            "dead": death <= censored,
            "age": age,
            "group": pd.Categorical(pd.cut(code[:, 0], [-9, -0.5, 0.5, 9], labels=["C", "B", "A"]).astype(str)),
            "noise": rng.choice(["x", "y"], n),
        },
        index=[f"patient {i}" for i in range(n)],
    )
    adata = anndata.AnnData(np.zeros((n, 1), np.float32), obs=obs)
    adata.obsm["X_ae"] = code
    return adata


@pytest.fixture(scope="module")
def result():
    adata = simulated()
    ae.tl.survival(adata, **KEYS, groupby="group", use_rep="X_ae", covariates=["age", "noise"])
    return adata


def test_groups_as_in_lifelines(result):
    record = result.uns["ae"]["survival"]
    obs = result.obs
    test = lifelines.statistics.multivariate_logrank_test(obs["months"], obs["group"], obs["dead"])
    assert record["logrank"]["p"] == pytest.approx(test.p_value)
    assert record["logrank"]["df"] == 2
    pairs = record["pairwise"]
    a = obs["group"] == "A"
    b = obs["group"] == "B"
    pair = lifelines.statistics.logrank_test(obs["months"][a], obs["months"][b], obs["dead"][a], obs["dead"][b])
    assert pairs.query("group_a == 'A' and group_b == 'B'")["p"].item() == pytest.approx(pair.p_value)
    assert (pairs["p_holm"] >= pairs["p"]).all()
    medians = record["medians"]
    assert medians.index.tolist() == ["A", "B", "C"]
    assert medians["median"].is_monotonic_increasing
    assert medians["patients"].sum() == 300
    curve = record["kaplan_meier"].query("group == 'A'")
    fit = lifelines.KaplanMeierFitter().fit(obs["months"][a], obs["dead"][a])
    np.testing.assert_allclose(curve["survival"], fit.survival_function_.iloc[:, 0])
    assert curve["at_risk"].iloc[0] == a.sum()
    assert (curve["lower"] <= curve["survival"]).all()
    assert (curve["survival"] <= curve["upper"]).all()


def test_cox_is_that_of_lifelines(result):
    """Hazard ratios, intervals, p-values and the test of proportional hazards, fitted by hand."""
    obs = result.obs
    frame = obs[["months", "dead", "age"]].copy()
    rare = obs["noise"].value_counts().index[1]
    frame["y"] = (obs["noise"] == rare).astype(float)  # compared with the more frequent
    cox = result.uns["ae"]["survival"]["cox"].query("model == 'alone'").set_index("term")
    for column, term in (("age", "age"), ("y", f"noise: {rare} vs {'x' if rare == 'y' else 'y'}")):
        one = frame[["months", "dead", column]]
        fit = lifelines.CoxPHFitter().fit(one, "months", "dead")
        expected = fit.summary.loc[column]
        found = cox.loc[term]
        assert found["hazard_ratio"] == pytest.approx(expected["exp(coef)"], rel=1e-4)
        assert found["lower"] == pytest.approx(expected["exp(coef) lower 95%"], rel=1e-4)
        assert found["upper"] == pytest.approx(expected["exp(coef) upper 95%"], rel=1e-4)
        assert found["p"] == pytest.approx(expected["p"], rel=1e-2)
        test = lifelines.statistics.proportional_hazard_test(fit, one, time_transform="rank")
        assert found["ph_p"] == pytest.approx(float(test.summary["p"].iloc[0]), rel=1e-2)


def test_hazard_ratios_contain_the_truth():
    adata = simulated(600, effect=0)  # with another strong effect that of age alone would be diluted
    ae.tl.survival(adata, **KEYS, covariates=["age", "noise"])
    cox = adata.uns["ae"]["survival"]["cox"]
    age = cox[cox["term"] == "age"]
    assert (age["lower"] < np.exp(0.05)).all()
    assert (age["upper"] > np.exp(0.05)).all()
    assert (age["lower"] > 1).all()
    noise = cox[cox["term"].str.startswith("noise")]
    assert noise["p"].min() > 0.01
    assert cox["ph_p"].min() > 0.01
    assert cox["model"].tolist() == ["alone", "alone", "together", "together"]


def test_the_risk_of_a_code_and_all_predictors_together(result):
    cox = result.uns["ae"]["survival"]["cox"]
    alone = cox.query("model == 'alone'").set_index("term")
    assert alone.loc["X_ae risk (per s.d.)", "lower"] > 1.5
    assert len(cox.query("model == 'together'")) == 2 + 1 + 1 + 1  # groups, age, noise, code


def test_scores_are_held_out(result):
    record = result.uns["ae"]["survival"]
    means = record["held_out"].groupby("predictors")[["c_index", "integrated_brier"]].mean()
    assert list(record["calibration"].index) == ["none", "X_ae", "covariates", "X_ae + covariates"]
    assert means.loc["none", "c_index"] == 0.5
    assert means.loc["X_ae", "c_index"] > 0.68
    assert 0.55 < means.loc["covariates", "c_index"] < means.loc["X_ae + covariates", "c_index"]
    assert means.loc["X_ae + covariates", "c_index"] > means.loc["X_ae", "c_index"]
    brier = means["integrated_brier"]
    assert brier["X_ae + covariates"] < brier["X_ae"] < brier["none"] < 0.25
    assert (record["calibration"]["p"] > 0.01).all()
    assert (record["calibration"]["patients"] == 300).all()
    assert result.obs["survival_risk"].notna().all()
    assert np.corrcoef(result.obs["survival_risk"], result.obsm["X_ae"][:, 0])[0, 1] > 0.9


def test_all_features_as_a_baseline():
    adata = simulated(150)
    rng = np.random.default_rng(0)
    x = adata.obsm["X_ae"] @ rng.normal(size=(6, 400)) + rng.normal(size=(150, 400))
    x[3, :30] = np.nan
    wide = anndata.AnnData(x, obs=adata.obs)
    ae.tl.survival(wide, **KEYS, use_rep="X")
    held_out = wide.uns["ae"]["survival"]["held_out"]
    assert held_out.query("predictors == 'X'")["c_index"].mean() > 0.6
    mdata = mudata.MuData({"a": wide[:, :150].copy(), "b": wide[:, 150:].copy()})
    mdata.obs = adata.obs.copy()
    ae.tl.survival(mdata, **KEYS, use_rep="X")
    np.testing.assert_allclose(mdata.uns["ae"]["survival"]["held_out"]["c_index"], held_out["c_index"])


def test_more_columns_than_patients_are_the_same_ridge():
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(40, 60)), rng.normal(size=(5, 60))
    time, event, is_code = rng.exponential(np.exp(-x[:, 0])), (rng.random(40) < 0.8).astype(float), np.arange(60) > 1
    found = predict(x, time, event, new, is_code, 0.3)
    mean, sd = x.mean(0), x.std(0)
    penalty = np.where(is_code, 0.3 * 58 / 32, COVARIATE_PENALTY)  # the code's columns weigh as much as 32
    expected = ((new - mean) / sd) @ ridge_cox((x - mean) / sd, time, event, penalty)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_code_of_noise_tells_nothing():
    adata = simulated(200, 40, effect=0)
    ae.tl.survival(adata, **KEYS, use_rep="X_ae")
    record = adata.uns["ae"]["survival"]
    held_out = record["held_out"].query("predictors == 'X_ae'")
    assert 0.4 < held_out["c_index"].mean() < 0.6  # in sample, 40 columns of noise reach 0.75
    assert record["cox"]["p"].item() > 0.01
    assert sorted(record["held_out"]["predictors"].unique()) == ["X_ae", "none"]


@given(st.integers(0, 10_000), st.floats(0.01, 10), st.booleans())
def test_ridge_cox_is_that_of_lifelines(seed, penalty, ties):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, 3))
    time = rng.exponential(np.exp(-x[:, 0]))
    if not ties:
        event = rng.random(50) < 0.7
        event[0] = True
        frame = pd.DataFrame(x).assign(time=time, event=event)
        expected = lifelines.CoxPHFitter(penalizer=penalty).fit(frame, "time", "event").params_.to_numpy()
        x_scaled = x / x.std(0, ddof=1)  # lifelines penalizes coefficients of columns scaled to unit variance
        found = ridge_cox(x_scaled, time, event.astype(float), np.full(3, penalty)) / x.std(0, ddof=1)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)
        return
    time, event = np.ceil(time * 3), np.ones(50)
    found = ridge_cox(x, time, event, np.full(3, penalty))
    best = _breslow(found, x, time, event, penalty)
    for step in rng.normal(size=(20, 3)) * 0.05:
        assert _breslow(found + step, x, time, event, penalty) <= best + 1e-9


def _breslow(beta, x, time, event, penalty):
    """The objective, patient by patient."""
    score, value = x @ beta, 0.0
    for i in np.flatnonzero(event):
        value += score[i] - np.log(np.exp(score[time >= time[i]]).sum())
    return value / len(x) - penalty * (beta**2).sum() / 2


# ---- scores of predicted survival ---------------------------------------------------------------------------------
def test_survival_curves_are_those_of_lifelines():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=80)})
    frame["time"] = np.ceil(10 * rng.exponential(np.exp(-frame["x"])))  # with ties
    frame["event"] = rng.random(80) < 0.7
    fit = lifelines.CoxPHFitter().fit(frame, "time", "event")
    risk = frame["x"].to_numpy() * fit.params_["x"]
    curves = survival_curves(risk, frame["time"].to_numpy(), frame["event"].to_numpy(float), risk[:7])
    expected = fit.predict_survival_function(frame[:7])
    np.testing.assert_allclose(curves.at(expected.index.to_numpy()), expected.to_numpy().T, atol=1e-6)
    np.testing.assert_allclose(curves.of_each(np.full(7, 3.0)), curves.at(np.array([3.0]))[:, 0])
    without = survival_curves(np.zeros(80), frame["time"].to_numpy(), frame["event"].to_numpy(float), np.zeros(1))
    hazard = lifelines.NelsonAalenFitter(nelson_aalen_smoothing=False).fit(frame["time"], frame["event"])
    at = hazard.cumulative_hazard_.index.to_numpy()
    tied = frame["time"].nunique() < len(frame)
    np.testing.assert_allclose(without.at(at)[0], np.exp(-hazard.cumulative_hazard_.iloc[:, 0]), atol=0.05 * tied)


def squared_error(curves, death, grid):
    """Mean over patients and time of the squared error, the times of death all being known."""
    error = ((death[:, None] > grid) - curves.at(grid)) ** 2
    return trapezoid(error.mean(0), grid) / (grid[-1] - grid[0])


def test_brier_score_is_the_squared_error_that_complete_follow_up_would_give():
    rng = np.random.default_rng(1)
    hazard = np.exp(rng.normal(size=2000))
    death, leave, ones = rng.exponential(size=2000) / hazard, rng.exponential(2, 2000), np.ones(2000)
    times = np.linspace(0.01, 3, 200)
    curves = Curves(times, np.exp(-np.outer(hazard, times)))
    grid = np.unique(death[death <= np.quantile(death, 0.8)])
    assert integrated_brier(curves, death, ones, death, ones) == pytest.approx(squared_error(curves, death, grid))
    seen, event = np.minimum(death, leave), (death <= leave).astype(float)
    grid = np.unique(seen[(seen <= np.quantile(seen, 0.8)) & (event > 0)])
    score = integrated_brier(curves, seen, event, seen, event)  # four in ten patients are censored
    assert score == pytest.approx(squared_error(curves, death, grid), rel=0.03)
    wrong = Curves(times, np.exp(-np.outer(1 / hazard, times)))
    assert integrated_brier(wrong, seen, event, seen, event) > 1.2 * score


def test_d_calibration_is_uniform_for_the_truth_and_tells_what_is_not():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(200):
        hazard, death, leave = np.exp(rng.normal(size=300)), rng.exponential(size=300), rng.exponential(1.5, 300)
        death = death / hazard
        time, event = np.minimum(death, leave), (death <= leave).astype(float)
        p.append(d_calibration(np.exp(-hazard * time), event)[1])
    assert np.mean(np.array(p) < 0.05) < 0.08  # spreading the censored makes the test cautious
    assert d_calibration(np.exp(-3 * hazard * time), event)[1] < 1e-4
    assert d_calibration(np.full(50, 0.05), np.ones(50))[0] == pytest.approx(450)
    assert d_calibration(np.ones(50), np.zeros(50)) == pytest.approx((0, 1))  # nobody died: nothing speaks against it


def test_a_rare_category_converges_and_one_without_events_is_left_out():
    adata = simulated(200)
    stage = np.where(np.arange(200) < 6, "IV", np.where(np.arange(200) < 60, "I", "II"))
    stage[60:70] = "0"
    adata.obs.loc[adata.obs_names[60:70], "dead"] = False
    adata.obs["stage"] = stage
    with pytest.warns(UserWarning, match="no events where 'stage' is"):
        ae.tl.survival(adata, **KEYS, covariates="stage")
    cox = adata.uns["ae"]["survival"]["cox"]
    assert sorted(cox["term"]) == ["stage: I vs II", "stage: IV vs II"]
    assert (cox["patients"] == 190).all()
    assert np.isfinite(cox["upper"]).all()


def test_hazards_that_cross_are_reported():
    rng = np.random.default_rng(0)
    late = np.r_[rng.uniform(20, 30, 100), rng.uniform(0, 50, 100)]
    adata = anndata.AnnData(np.zeros((200, 1), np.float32))
    adata.obs["months"], adata.obs["dead"] = late, 1
    adata.obs["group"] = ["a"] * 100 + ["b"] * 100
    with pytest.warns(UserWarning, match="hazards are not proportional"):
        ae.tl.survival(adata, **KEYS, groupby="group")
    assert adata.uns["ae"]["survival"]["cox"]["ph_p"].item() < 1e-3


@pytest.mark.parametrize(
    "words",
    [
        (True, False),
        (1, 0),
        (1.0, 0.0),
        ("1", "0"),
        ("Dead", "Alive"),
        ("1:DECEASED", "0:LIVING"),
        ("DECEASED", "LIVING"),
        ("Recurred/Progressed", "DiseaseFree"),
    ],
)
def test_ways_to_write_an_event(words):
    adata = simulated(60)
    ae.tl.survival(adata, **KEYS, groupby="group")
    expected = adata.uns["ae"]["survival"]["logrank"]["p"]
    adata.obs["dead"] = pd.Series(np.where(adata.obs["dead"], *np.array(words, object)), adata.obs_names)
    ae.tl.survival(adata, **KEYS, groupby="group")
    assert adata.uns["ae"]["survival"]["logrank"]["p"] == expected
    adata.obs["dead"] = adata.obs["dead"].astype("category")
    ae.tl.survival(adata, **KEYS, groupby="group")
    assert adata.uns["ae"]["survival"]["logrank"]["p"] == expected


def test_patients_without_a_time_are_counted_and_left_out():
    adata = simulated(80)
    adata.obs["months"] = adata.obs["months"].astype(object)
    adata.obs.loc[adata.obs_names[:3], "months"] = "[Not Available]"
    adata.obs.loc[adata.obs_names[3:5], "months"] = 0
    adata.obs.loc[adata.obs_names[5], "months"] = -4.5
    adata.obs["dead"] = adata.obs["dead"].astype(object)
    adata.obs.loc[adata.obs_names[6], "dead"] = np.nan
    with pytest.warns(UserWarning, match="7 of 80 patients are left out: 3 lack a time, 1 an event, and the time of 3"):
        ae.tl.survival(adata, **KEYS, groupby="group", use_rep="X_ae")
    record = adata.uns["ae"]["survival"]
    assert record["patients"]["used"] == 73
    assert record["medians"]["patients"].sum() == 73
    assert adata.obs["survival_risk"].isna().sum() == 7


BAD = {
    "no such time": (lambda a: None, {"time_key": "years"}, KeyError, "years"),
    "time in words": (lambda a: a.obs.__setitem__("months", "long"), {}, TypeError, "'long', which is no time"),
    "infinite time": (lambda a: a.obs.__setitem__("months", np.inf), {}, TypeError, "inf"),
    "events 1 and 2": (lambda a: a.obs.__setitem__("dead", [1, 2] * 30), {}, ValueError, r"holds \['2'\]"),
    "events in words": (lambda a: a.obs.__setitem__("dead", "perhaps"), {}, ValueError, "perhaps"),
    "no events": (lambda a: a.obs.__setitem__("dead", 0), {}, ValueError, "no events"),
    "numbers as groups": (lambda a: None, {"groupby": "age"}, ValueError, "60 different values; cut it"),
    "nothing to relate": (lambda a: None, {"groupby": None}, ValueError, "nothing to relate"),
    "no such code": (lambda a: None, {"use_rep": "X_none"}, KeyError, "X_none"),
    "no such covariate": (lambda a: None, {"covariates": "grade"}, KeyError, "grade"),
    "too many folds": (lambda a: None, {"use_rep": "X_ae", "n_splits": 50}, ValueError, "n_splits=50"),
    "twice the same": (lambda a: None, {"covariates": "group"}, ValueError, "both groupby= and a covariate"),
    "their column": (lambda a: a.obs.__setitem__("survival_risk", 1), {}, ValueError, "not written by aeverse"),
}


@pytest.mark.parametrize(("change", "arguments", "error", "message"), BAD.values(), ids=BAD)
def test_a_mistake_is_named_and_changes_nothing(change, arguments, error, message, fingerprint):
    adata = simulated(60)
    change(adata)
    before = fingerprint(adata)
    with pytest.raises(error, match=message):
        ae.tl.survival(adata, **{**KEYS, "groupby": "group", **arguments})
    assert fingerprint(adata) == before


def test_a_missing_lifelines_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lifelines", None)
    with pytest.raises(ImportError, match=r"aeverse\[survival\]"):
        ae.tl.survival(simulated(30), **KEYS, groupby="group")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mudata_its_file_and_a_second_call(tmp_path, random_states):
    adata = simulated(80)
    mdata = mudata.MuData({"rna": anndata.AnnData(adata.X, obs=adata.obs[[]])})
    mdata.obs = adata.obs.copy()
    mdata.obsm["X_ae"] = adata.obsm["X_ae"]
    before = random_states()
    ae.tl.survival(mdata, **KEYS, groupby="group", use_rep="X_ae", covariates="age")
    assert random_states() == before
    mdata.write_h5mu(tmp_path / "cohort.h5mu")
    again = mudata.read_h5mu(tmp_path / "cohort.h5mu")
    for name in ("cox", "held_out", "calibration", "kaplan_meier", "pairwise", "medians"):
        table = mdata.uns["ae"]["survival"][name]
        pd.testing.assert_frame_equal(again.uns["ae"]["survival"][name], table, check_names=False)
    ae.tl.survival(again, **KEYS, groupby="group")
    assert "survival_risk" not in again.obs  # of the first call, which this one replaces
    ae.tl.associations(again, groupby="group", columns="age")
    assert sorted(again.uns["ae"]) == ["associations", "survival"]
    ae.pl.kaplan_meier(again, show=False)


def test_tables_do_not_replace_another_result():
    adata = simulated(60)
    ae.tl.subtypes(adata, n_subtypes=2, max_subtypes=2)
    for run in (
        lambda: ae.tl.survival(adata, **KEYS, groupby="group", key_added="subtype"),
        lambda: ae.tl.associations(adata, groupby="group", columns="age", key_added="subtype"),
    ):
        with pytest.raises(ValueError, match="belongs to another result"):
            run()


# ---- associations ----------------------------------------------------------------------------------------------
def test_associations_are_those_of_scipy():
    adata = simulated(200)
    adata.obs["type"] = np.where(adata.obs["group"] == "A", "x", adata.obs["noise"])
    adata.obs["stage"] = pd.Series(["I", "II", "III", "NA"] * 50, adata.obs_names)
    ae.tl.associations(adata, groupby="group", columns=["age", "type", "stage", "dead"])
    table = adata.uns["ae"]["associations"]["tests"]
    expected = stats.kruskal(*(v for _, v in adata.obs["age"].groupby(adata.obs["group"], observed=True)))
    assert table.loc["age", "p"] == pytest.approx(expected.pvalue)
    expected = stats.chi2_contingency(pd.crosstab(adata.obs["group"], adata.obs["type"]), correction=False)
    assert table.loc["type", "p"] == pytest.approx(expected.pvalue)
    assert table.loc["type", "effect"] > 0.3
    assert table.loc["stage", "patients"] == 150
    assert (table["p_bh"] >= table["p"]).all()
    assert table["effect"].between(0, 1).all()


def test_small_tables_are_tested_exactly_or_by_permutation():
    adata = simulated(24)
    adata.obs["two"] = ["a"] * 4 + ["b"] * 20
    adata.obs["three"] = ["a"] * 3 + ["b"] * 11 + ["c"] * 10
    adata.obs["half"] = ["x"] * 5 + ["y"] * 19
    ae.tl.associations(adata, groupby="half", columns=["two", "three"])
    table = adata.uns["ae"]["associations"]["tests"]
    assert table["test"].tolist() == ["Fisher", "chi-square, permutation"]
    assert table.loc["two", "p"] == pytest.approx(stats.fisher_exact([[4, 0], [1, 19]]).pvalue)
    assert 1e-4 <= table.loc["three", "p"] < 0.01


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groupby": "nothing", "columns": "age"}, KeyError, "nothing"),
        ({"groupby": "group", "columns": "nothing"}, KeyError, "nothing"),
        ({"groupby": "one", "columns": "age"}, ValueError, "two are needed"),
        ({"groupby": "group", "columns": "one"}, ValueError, "one value only"),
        ({"groupby": "group", "columns": "name"}, ValueError, "60 categories"),
    ],
)
def test_a_mistake_in_associations_is_named(arguments, error, message, fingerprint):
    adata = simulated(60)
    adata.obs["one"], adata.obs["name"] = "same", list(adata.obs_names)
    before = fingerprint(adata)
    with pytest.raises(error, match=message):
        ae.tl.associations(adata, **arguments)
    assert fingerprint(adata) == before


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_corrections_are_those_of_scipy_and_of_the_closed_test(p):
    """Holm's correction rejects a hypothesis where Bonferroni's rejects all the sets that it is in."""
    sets = [s for n in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), n)]
    closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]
    np.testing.assert_allclose(holm(np.array(p)), closed, atol=1e-12)
    np.testing.assert_allclose(benjamini_hochberg(np.array(p)), stats.false_discovery_control(p), atol=1e-12)


# ---- the picture -----------------------------------------------------------------------------------------------
def test_kaplan_meier_draws_what_was_found(result, fingerprint, tmp_path):
    import matplotlib.pyplot as plt

    before = fingerprint(result)
    ax = ae.pl.kaplan_meier(result, save=tmp_path / "km.png")
    assert (tmp_path / "km.png").read_bytes().startswith(b"\x89PNG")
    assert fingerprint(result) == before
    curve = result.uns["ae"]["survival"]["kaplan_meier"].query("group == 'A'")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), curve["survival"])
    texts = [t.get_text() for t in ax.texts]
    assert any(t.startswith("log-rank p") for t in texts)
    assert str((result.obs["group"] == "A").sum()) in texts  # all at risk at time 0
    _, mine = plt.subplots()
    assert ae.pl.kaplan_meier(result, ax=mine) is mine
    adata = simulated(60)
    ae.tl.survival(adata, **KEYS, use_rep="X_ae")
    with pytest.raises(ValueError, match="groupby="):
        ae.pl.kaplan_meier(adata)
    with pytest.raises(KeyError, match="nothing"):
        ae.pl.kaplan_meier(result, key="nothing")
    plt.close("all")


def test_forest_draws_what_was_found(result, fingerprint, tmp_path):
    import matplotlib.pyplot as plt

    before = fingerprint(result)
    ax = ae.pl.forest(result, save=tmp_path / "forest.png")
    assert fingerprint(result) == before
    table = result.uns["ae"]["survival"]["cox"]
    assert [t.get_text() for t in ax.get_yticklabels()] == list(dict.fromkeys(table["term"]))
    drawn = np.concatenate([line.get_xdata() for line in ax.lines if line.get_label() in ("alone", "together")])
    np.testing.assert_allclose(sorted(drawn), sorted(table["hazard_ratio"]))
    assert f"{table['hazard_ratio'][0]:.2f} (" in ax.texts[0].get_text()
    adata = simulated(60)
    with pytest.raises(KeyError, match="survival"):
        ae.pl.forest(adata)
    adata.obs["group"] = "one"
    ae.tl.survival(adata, **KEYS, groupby="group")
    with pytest.raises(ValueError, match="no hazard ratios"):
        ae.pl.forest(adata)
    plt.close("all")
