"""`tl.survival`: do groups of patients, or an embedding, predict who lives longer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.tl._cox import cox, cross_validated, terms_of
from aeverse.tl._multiple_testing import holm
from aeverse.tl._outcome import names_in_order, outcome, require_lifelines

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

MAX_GROUPS = 20


@checked
def survival(
    data: AnnData | MuData,
    *,
    time_key: str,
    event_key: str,
    groupby: str | None = None,
    use_rep: str | None = None,
    covariates: str | Sequence[str] | None = None,
    n_splits: int = 5,
    key_added: str = "survival",
    random_state: int = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Compare the survival of groups of patients, and test what an embedding adds to clinical covariates.

    With `groupby`: Kaplan-Meier curves, log-rank tests of all groups and of each pair (Holm), and hazard ratios.

    With `use_rep`: how well a ridge Cox model [Simon2011]_ predicts patients that it has not seen, from the embedding alone,
    from the covariates alone, from both, and from nothing (the Kaplan-Meier curve of the others). Three scores: the
    C-index (who dies first), the integrated Brier score [Graf1999]_ (how far the predicted survival is off) and
    D-calibration [Haider2020]_ (whether the predicted probabilities come true). Also the hazard ratio of the embedding's
    risk score, where the risk of each patient comes from a model that did not see that patient (pre-validation,
    [Tibshirani2002]_). What is held out is the Cox model: the embedding has usually seen all patients, though not their
    survival. For the figure that a new patient would meet, fit the encoder to a part of the patients too and encode the
    others.

    An embedding is worth having if it predicts better than the features that it was made of: run the same with
    ``use_rep="X"`` and another `key_added`. The folds are the same.

    Parameters
    ----------
    data
        Cohort; patients are the observations.
    time_key
        Column of ``data.obs`` with the time to the event or to the last contact, in any unit. Patients whose time is
        missing, zero or negative are left out, with a warning.
    event_key
        Column of ``data.obs``: True, 1 or words such as ``"Dead"``, ``"DECEASED"``, ``"1:DECEASED"`` where the event
        happened; False, 0, ``"Alive"``, ``"0:LIVING"`` where the patient was censored.
    groupby
        Column of ``data.obs`` with groups, such as that of `aeverse.tl.subtypes`.
    use_rep
        Key of an embedding in ``data.obsm``; ``"X"``: all features, of a MuData those of all modalities side by side, each
        with one penalty and standardized, missing values at the mean.
    covariates
        Columns of ``data.obs`` for the Cox models: numbers as they are, others as categories compared with the most
        frequent one. Patients without one (NaN, ``"NA"``, ``"[Not Available]"``, …) are left out of the Cox models.
    n_splits
        Folds of the cross-validation, stratified by event.
    key_added
        Name of the results.
    random_state
        Seed of the folds.
    copy
        Write to a copy and return it.

    Returns
    -------
    `None`, or the copy. ``uns["ae"][key_added]`` holds tables, which are data frames and survive a file:

    ``patients``
        How many were used, and why others were not.
    ``kaplan_meier``, ``medians``
        Curve of each group with 95 % confidence bounds; median survival (``inf``: not reached).
    ``logrank``, ``pairwise``
        Log-rank statistic and p-value of all groups (`groupby`), and of each pair with Holm's correction.
    ``cox``
        A row per term of each model (``model`` is ``"alone"``: this predictor only, or ``"together"``): hazard ratio
        with 95 % interval, ``p``, and ``ph_p``, the p-value of proportional hazards (scaled Schoenfeld residuals
        against the rank of time, [Grambsch1994]_): when it is small the hazard ratio is an average over time.
    ``held_out``
        A row per fold and set of `predictors`: ``c_index`` (1 is perfect, 0.5 is chance), ``integrated_brier`` (0 is
        perfect; compare with ``predictors == "none"``), the ``penalty`` that inner folds chose. The Brier score is
        integrated up to the time at which a fifth of the training patients is still observed.
    ``calibration``
        A row per set of predictors, over the held-out patients of all folds: the chi-square of D-calibration and its
        ``p``. Small: the predicted probabilities do not come true.

    With `use_rep`, ``obs[key_added + "_risk"]`` is the held-out log hazard of each patient (NaN where there is none).

    Raises
    ------
    ImportError
        lifelines is not installed: ``pip install "aeverse[survival]"``.
    KeyError, TypeError, ValueError
        A column does not exist or does not hold times or events, or too few events happened. `data` is then as it was.

    See Also
    --------
    aeverse.pl.kaplan_meier : The curves.
    aeverse.pl.forest : The hazard ratios.

    Examples
    --------
    >>> import aeverse as ae
    >>> import numpy as np
    >>> adata = ae.datasets.simulate_counts(200, 50, n_types=2)
    >>> rng = np.random.default_rng(0)
    >>> adata.obs["months"] = rng.exponential(np.where(adata.obs["cell_type"] == "type 0", 50, 20))
    >>> adata.obs["dead"] = rng.random(200) < 0.6
    >>> ae.tl.survival(adata, time_key="months", event_key="dead", groupby="cell_type")
    >>> adata.uns["ae"]["survival"]["medians"]["patients"].tolist()
    [97, 103]
    """
    params = _slots.parameters(locals())
    require_lifelines()
    covariates = [] if covariates is None else _slots.name_list(covariates)
    if groupby is None and use_rep is None and not covariates:
        raise ValueError("nothing to relate to survival: pass groupby=, use_rep= or covariates=.")
    data = _slots.writable_any(data, copy)
    _slots.check_keys(data, [("obs", f"{key_added}_risk")], key_added, tables=True)
    obs = data.obs
    time, event, patients = outcome(obs, time_key, event_key)
    record: dict[str, Any] = {}
    predictors: dict[str, pd.DataFrame] = {}  # name -> terms, NaN where unknown
    if groupby is not None:
        groups = _slots.read_groups(obs, groupby)
        _check_groups(groups[time.notna()], groupby)
        patients["group_missing"] = int((time.notna() & groups.isna()).sum())
        record |= _by_group(time, event, groups)
        predictors[groupby] = terms_of(groups, groupby, event)
    for name in covariates:
        if name == groupby:
            raise ValueError(f"{name!r} is both groupby= and a covariate.")
        if name not in obs:
            raise KeyError(f"covariates: {name!r} is not a column of obs; columns are: {list(obs.columns)}.")
        values = _slots.unknown_as_nan(obs[name])
        if values[time.notna()].isna().all():
            raise ValueError(f"covariates: obs[{name!r}] is known for no patient with a survival time; leave it out.")
        predictors[name] = terms_of(values, name, event)
    risk = None
    if use_rep is not None:
        values = _slots.read_features(data) if use_rep == "X" else _slots.read_code(data, use_rep)
        code = pd.DataFrame(values, index=obs.index)
        clinical = pd.concat([predictors[name] for name in covariates], axis=1) if covariates else None
        tables, risk = cross_validated(time, event, code, clinical, n_splits, random_state, name=use_rep)
        record |= tables
        label = f"{use_rep} risk (per s.d.)"
        predictors[use_rep] = ((risk - risk.mean()) / risk.std()).rename(label).to_frame()
    record["cox"] = cox(time, event, predictors)
    _slots.write(
        data,
        _slots.Results(
            name=key_added,
            record={
                "params": {**params, "covariates": covariates},
                "versions": _slots.versions(),
                "patients": patients,
                **record,
            },
            obs={} if risk is None else {f"{key_added}_risk": risk.to_numpy()},
        ),
    )
    return data if copy else None


def _check_groups(groups: pd.Series, key: str) -> None:
    if groups.nunique() > MAX_GROUPS:
        raise ValueError(
            f"obs[{key!r}] has {groups.nunique()} different values; cut it into at most {MAX_GROUPS} groups."
        )
    if groups.notna().sum() == 0:
        raise ValueError(f"obs[{key!r}] is known for no patient with a survival time.")
    sizes = groups.astype(str)[groups.notna()].value_counts()
    if len(sizes) == 1:
        _slots.warn(f"obs[{key!r}] has one group only, {sizes.index[0]!r}, so that there is nothing to compare.")
    elif (sizes == 1).any():
        _slots.warn(
            f"obs[{key!r}]: {sorted(sizes.index[sizes == 1])} hold one patient each, of whom nothing can be said."
        )


def _by_group(time: pd.Series, event: pd.Series, groups: pd.Series) -> dict[str, Any]:
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import multivariate_logrank_test, pairwise_logrank_test
    from lifelines.utils import median_survival_times

    use = time.notna() & groups.notna()
    time, event, names = time[use], event[use], groups[use].astype(str)
    curves, medians = [], []
    order = names_in_order(groups[use])
    for name in order:
        members = names == name
        fit = KaplanMeierFitter().fit(time[members], event[members])
        bounds, table = fit.confidence_interval_survival_function_, fit.event_table
        curves.append(
            pd.DataFrame(
                {
                    "group": name,
                    "time": fit.survival_function_.index.to_numpy(np.float64),
                    "at_risk": table["at_risk"].to_numpy(int),
                    "events": table["observed"].to_numpy(int),
                    "censored": table["censored"].to_numpy(int),
                    "survival": fit.survival_function_.iloc[:, 0].to_numpy(),
                    "lower": bounds.iloc[:, 0].to_numpy(),
                    "upper": bounds.iloc[:, 1].to_numpy(),
                }
            )
        )
        low, high = np.ravel(median_survival_times(bounds).to_numpy())
        medians.append((int(members.sum()), int(event[members].sum()), float(fit.median_survival_time_), low, high))
    columns = ["patients", "events", "median", "lower", "upper"]
    summary: dict[str, Any] = {
        "kaplan_meier": _slots.numbered(pd.concat(curves)),
        "medians": pd.DataFrame(medians, columns=columns, index=pd.Index(order, name="group")),
    }
    if len(order) > 1:
        test = multivariate_logrank_test(time, names, event)
        summary["logrank"] = {"statistic": float(test.test_statistic), "p": float(test.p_value), "df": len(order) - 1}
        pairs = pairwise_logrank_test(time, names, event).summary.reset_index()
        pairs = pairs.set_axis(["group_a", "group_b", *pairs.columns[2:]], axis=1)
        pairs = pairs[["group_a", "group_b", "test_statistic", "p"]].rename(columns={"test_statistic": "statistic"})
        summary["pairwise"] = _slots.numbered(pairs.assign(p_holm=holm(pairs["p"].to_numpy())))
    return summary
