"""`tl.survival`: do groups of patients, or a code, say who lives longer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse.tl._tests import column, holm

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

PENALTIES = (0.01, 0.1, 1.0, 10.0)  # ridge on the standardised code; chosen in inner folds
COVARIATE_PENALTY = 0.01  # a handful of clinical covariates needs hardly any
INNER_FOLDS = 3
MAX_GROUPS = 20
DOUBTFUL = 0.01  # p-value of the test of proportional hazards


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
    """Compare the survival of groups of patients, and test what a code adds to clinical covariates.

    With `groupby`: Kaplan-Meier curves, log-rank tests of all groups and of each pair (Holm), and hazard ratios. With
    `use_rep`: cross-validated concordance of a ridge Cox model [Simon2011]_ on the code alone, on the covariates alone
    and on both, and the hazard ratio of the code's risk score, where the risk of each patient comes from a model that
    did not see that patient (pre-validation, [Tibshirani2002]_). What is held out is the Cox model: the code has usually
    seen all patients, though not their survival. For the figure that a new patient would meet, fit the encoder to a part
    of the patients too and encode the others.

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
        Key of a code in ``data.obsm``.
    covariates
        Columns of ``data.obs`` for the Cox models: numbers as they are, others as categories compared with the most
        frequent one. Patients who lack one (NaN, ``"NA"``, ``"[Not Available]"``, …) are left out of the Cox models.
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
    ``concordance``
        C-index of each held-out fold for each set of predictors.

    With `use_rep`, ``obs[key_added + "_risk"]`` is the held-out log hazard of each patient (NaN where there is none).

    Raises
    ------
    ImportError
        lifelines is not installed: ``pip install "aeverse[survival]"``.
    KeyError, TypeError, ValueError
        A column does not exist or does not hold times or events, or too few events happened. `data` is then as it was.

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
    _require_lifelines()
    covariates = [] if covariates is None else _slots.name_list(covariates)
    if groupby is None and use_rep is None and not covariates:
        raise ValueError("nothing to relate to survival: pass groupby=, use_rep= or covariates=.")
    data = _slots.cohort(data, copy)
    _slots.check_keys(data, [("obs", f"{key_added}_risk")], key_added, tables=True)
    obs = data.obs
    time, event, patients = _outcome(obs, time_key, event_key)
    record: dict[str, Any] = {}
    predictors: dict[str, pd.DataFrame] = {}  # name -> terms, NaN where unknown
    if groupby is not None:
        groups = _slots.known(column(obs, groupby))
        _check_groups(groups[time.notna()], groupby)
        record |= _by_group(time, event, groups)
        predictors[groupby] = _terms(groups, groupby, event)
    for name in covariates:
        if name == groupby:
            raise ValueError(f"{name!r} is both groupby= and a covariate.")
        predictors[name] = _terms(_slots.known(column(obs, name)), name, event)
    risk = None
    if use_rep is not None:
        code = pd.DataFrame(_slots.read_code(data, use_rep), index=obs.index)
        clinical = pd.concat([predictors[name] for name in covariates], axis=1) if covariates else None
        record["concordance"], risk = _cross_validated(time, event, code, clinical, n_splits, random_state)
        label = f"{use_rep} risk (per s.d.)"
        predictors[use_rep] = ((risk - risk.mean()) / risk.std()).rename(label).to_frame()
    record["cox"] = _cox(time, event, predictors)
    params = {
        "time_key": time_key,
        "event_key": event_key,
        "groupby": groupby,
        "use_rep": use_rep,
        "covariates": covariates or None,
        "n_splits": n_splits,
        "random_state": random_state,
    }
    _slots.write(
        data,
        _slots.Results(
            name=key_added,
            record={"params": params, "versions": _slots.versions(), "patients": patients, **record},
            obs={} if risk is None else {f"{key_added}_risk": risk.to_numpy()},
        ),
    )
    return data if copy else None


def _require_lifelines() -> None:
    try:
        import lifelines  # noqa: F401
    except ImportError as error:
        raise ImportError('tl.survival needs lifelines, which is an extra: pip install "aeverse[survival]".') from error


# ---- times and events ------------------------------------------------------------------------------------------
def _outcome(obs: pd.DataFrame, time_key: str, event_key: str) -> tuple[pd.Series, pd.Series, dict[str, int]]:
    """Time and event, both NaN for patients who cannot be used, and how many those are."""
    time, event = _times(obs, time_key), _events(obs, event_key)
    no_time, no_event = time.isna(), event.isna()
    not_positive = time <= 0
    usable = ~(no_time | no_event | not_positive)
    counts = {
        "used": int(usable.sum()),
        "events": int(event[usable].sum()),
        "time_missing": int(no_time.sum()),
        "event_missing": int((no_event & ~no_time).sum()),
        "time_not_positive": int((not_positive & ~no_event).sum()),
    }
    if counts["events"] == 0:
        raise ValueError(f"no events: obs[{event_key!r}] is nowhere true among {counts['used']} patients with a time.")
    if counts["used"] < len(obs):
        _slots.warn(
            f"{len(obs) - counts['used']} of {len(obs)} patients are left out: {counts['time_missing']} lack a time, "
            f"{counts['event_missing']} an event, and the time of {counts['time_not_positive']} is zero or negative."
        )
    return time.where(usable), event.where(usable), counts


def _times(obs: pd.DataFrame, key: str) -> pd.Series:
    values = _slots.known(column(obs, key))
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        raise TypeError(f"obs[{key!r}] holds {values.dtype}, not times; pass a number of days, months or years.")
    if pd.api.types.is_timedelta64_dtype(values):
        return values.dt.total_seconds() / 86_400
    numbers = pd.to_numeric(values.astype(object), errors="coerce").astype(np.float64)
    broken = values.notna() & ~np.isfinite(numbers)
    if broken.any():
        raise TypeError(f"obs[{key!r}] holds {values[broken].iloc[0]!r}, which is no time; convert it to numbers.")
    return numbers


def _events(obs: pd.DataFrame, key: str) -> pd.Series:
    values = _slots.known(column(obs, key))
    events = values.astype(object).map(_slots.happened, na_action="ignore").astype(np.float64)
    broken = values.notna() & events.isna()
    if broken.any():
        found = sorted({str(v) for v in values[broken]})[:4]
        raise ValueError(
            f"obs[{key!r}] holds {found}, which say neither event nor censored; use True and False, 1 and 0, or words "
            "such as 'Dead' and 'Alive'."
        )
    return events


# ---- groups ----------------------------------------------------------------------------------------------------
def _check_groups(groups: pd.Series, key: str) -> None:
    if groups.nunique() > MAX_GROUPS:
        raise ValueError(
            f"obs[{key!r}] has {groups.nunique()} different values; cut it into at most {MAX_GROUPS} groups."
        )
    if groups.notna().sum() == 0:
        raise ValueError(f"obs[{key!r}] is known for no patient with a survival time.")


def _by_group(time: pd.Series, event: pd.Series, groups: pd.Series) -> dict[str, Any]:
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import multivariate_logrank_test, pairwise_logrank_test
    from lifelines.utils import median_survival_times

    use = time.notna() & groups.notna()
    time, event, names = time[use], event[use], groups[use].astype(str)
    curves, medians = [], []
    order = _names_in_order(groups[use])
    for name in order:
        mine = names == name
        fit = KaplanMeierFitter().fit(time[mine], event[mine])
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
        medians.append((int(mine.sum()), int(event[mine].sum()), float(fit.median_survival_time_), low, high))
    columns = ["patients", "events", "median", "lower", "upper"]
    found: dict[str, Any] = {
        "kaplan_meier": _numbered(pd.concat(curves)),
        "medians": pd.DataFrame(medians, columns=columns, index=pd.Index(order, name="group")),
    }
    if len(order) > 1:
        test = multivariate_logrank_test(time, names, event)
        found["logrank"] = {"statistic": float(test.test_statistic), "p": float(test.p_value), "df": len(order) - 1}
        pairs = pairwise_logrank_test(time, names, event).summary.reset_index()
        pairs = pairs.set_axis(["group_a", "group_b", *pairs.columns[2:]], axis=1)
        pairs = pairs[["group_a", "group_b", "test_statistic", "p"]].rename(columns={"test_statistic": "statistic"})
        found["pairwise"] = _numbered(pairs.assign(p_holm=holm(pairs["p"].to_numpy())))
    return found


def _names_in_order(values: pd.Series) -> list[str]:
    """Names of the groups that occur: categories in their own order, others sorted."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [str(v) for v in values.cat.remove_unused_categories().cat.categories]
    return [str(v) for v in sorted(values.dropna().unique())]


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows numbered by strings: what anndata can write."""
    return table.set_axis([str(i) for i in range(len(table))], axis=0)


# ---- Cox models ------------------------------------------------------------------------------------------------
def _terms(values: pd.Series, name: str, event: pd.Series) -> pd.DataFrame:
    """Columns of a Cox model: the number itself, or one for each category but the most frequent; NaN if unknown.

    The hazard of a category without events cannot be estimated (its logarithm runs to minus infinity): it is left out.
    """
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return values.astype(np.float64).rename(name).to_frame()
    order = _names_in_order(values)
    words = values.astype(object).map(str, na_action="ignore")[event.notna()]
    events = event.groupby(words).sum()
    without = [v for v in order if v in events and events[v] == 0]
    if without:
        _slots.warn(
            f"no events where {name!r} is {without}: those patients are left out of the Cox models with {name!r}."
        )
    base = words[~words.isin(without)].value_counts().index
    if len(base) == 0:
        raise ValueError(f"obs[{name!r}] is known for no patient with an event.")
    others = [v for v in order if v in base and v != base[0]]
    terms = pd.DataFrame({f"{name}: {v} vs {base[0]}": (words == v).astype(float) for v in others}, index=words.index)
    terms[words.isna() | words.isin(without)] = np.nan
    return terms.reindex(values.index)


def _cox(time: pd.Series, event: pd.Series, predictors: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Hazard ratios of each predictor alone and, if there are several, of all together."""
    columns = [_one_cox(time, event, terms, "alone") for terms in predictors.values()]
    if len(predictors) > 1:
        columns.append(_one_cox(time, event, pd.concat(predictors.values(), axis=1), "together"))
    table = _numbered(pd.concat(columns))
    doubtful = table[table["ph_p"] < DOUBTFUL]
    if len(doubtful):
        _slots.warn(
            f"hazards are not proportional for {sorted(set(doubtful['term']))} (smallest p = "
            f"{doubtful['ph_p'].min():.2g}): their hazard ratios are averages over the time of follow-up."
        )
    return table


def _one_cox(time: pd.Series, event: pd.Series, terms: pd.DataFrame, model: str) -> pd.DataFrame:
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError
    from lifelines.statistics import proportional_hazard_test

    use = time.notna() & terms.notna().all(axis=1)
    terms = terms[use]
    terms = terms.loc[:, terms.nunique() > 1]
    columns = ["model", "term", "hazard_ratio", "lower", "upper", "z", "p", "ph_p", "patients", "events"]
    if terms.empty or event[use].sum() == 0:
        return pd.DataFrame(columns=columns)
    names = [f"x{i}" for i in range(terms.shape[1])]  # lifelines reads column names as formulas
    frame = terms.set_axis(names, axis=1).assign(time=time[use], event=event[use])
    # lifelines' first steps overshoot where a category is rare, so it starts from the solution.
    x = frame[names].to_numpy()
    start = ridge_cox((x - x.mean(0)) / x.std(0), *frame[["time", "event"]].to_numpy().T, np.full(len(names), 1e-6))  # type: ignore[call-arg]
    try:
        fit = CoxPHFitter().fit(frame, "time", "event", initial_point=start)
    except ConvergenceError as error:
        raise ValueError(
            f"the Cox model of {list(terms)} does not converge: a column is a combination of others, or all its events "
            "happened on one side of a value. Leave it out or merge small groups."
        ) from error
    found = fit.summary
    table = pd.DataFrame(
        {
            "model": model,
            "term": list(terms.columns),
            "hazard_ratio": found["exp(coef)"].to_numpy(),
            "lower": found["exp(coef) lower 95%"].to_numpy(),
            "upper": found["exp(coef) upper 95%"].to_numpy(),
            "z": found["z"].to_numpy(),
            "p": found["p"].to_numpy(),
            "ph_p": proportional_hazard_test(fit, frame, time_transform="rank").summary["p"].reindex(names).to_numpy(),
            "patients": int(use.sum()),
            "events": int(event[use].sum()),
        }
    )
    return table[columns]


def _cross_validated(
    time: pd.Series,
    event: pd.Series,
    code: pd.DataFrame,
    clinical: pd.DataFrame | None,
    n_splits: int,
    random_state: int,
) -> tuple[pd.DataFrame, pd.Series]:
    """C-index of every held-out fold for code, covariates and both; and the held-out risk by the code alone."""
    from lifelines.utils import concordance_index
    from sklearn.model_selection import StratifiedKFold

    use = time.notna() if clinical is None else time.notna() & clinical.notna().all(axis=1)
    t, e = time[use].to_numpy(), event[use].to_numpy()
    fewest = int(min(e.sum(), (1 - e).sum()))
    if not 2 <= n_splits <= fewest:
        raise ValueError(
            f"n_splits={n_splits}: must be between 2 and {fewest}, the number of events (or of censored patients)."
        )
    z = code[use].to_numpy()
    sets = {"code": (z, np.ones(z.shape[1], bool))}
    if clinical is not None:
        c = clinical[use].to_numpy()
        sets["covariates"] = (c, np.zeros(c.shape[1], bool))
        sets["both"] = (np.hstack([z, c]), np.r_[np.ones(z.shape[1], bool), np.zeros(c.shape[1], bool)])
    rows, risk = [], np.full(len(t), np.nan)
    for fold, (train, test) in enumerate(
        StratifiedKFold(n_splits, shuffle=True, random_state=random_state).split(z, e)
    ):
        for name, (x, is_code) in sets.items():
            penalty = _choose_penalty(x[train], t[train], e[train], is_code, random_state)
            predicted = _predict(x[train], t[train], e[train], x[test], _penalties(is_code, penalty))
            if name == "code":
                risk[test] = predicted
            if _comparable(t[test], e[test]):
                c_index = concordance_index(t[test], -predicted, e[test])
                rows.append((name, fold, c_index, penalty if is_code.any() else np.nan, len(test), int(e[test].sum())))
    columns = ["predictors", "fold", "c_index", "penalty", "patients", "events"]
    return _numbered(pd.DataFrame(rows, columns=columns)), pd.Series(risk, time.index[use]).reindex(time.index)


def _choose_penalty(x: np.ndarray, t: np.ndarray, e: np.ndarray, is_code: np.ndarray, random_state: int) -> float:
    """The penalty on the code with the best mean C-index in inner folds."""
    from lifelines.utils import concordance_index
    from sklearn.model_selection import StratifiedKFold

    if not is_code.any() or min(e.sum(), (1 - e).sum()) < INNER_FOLDS:
        return PENALTIES[1]
    scores = np.zeros(len(PENALTIES))
    for train, test in StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=random_state).split(x, e):
        if _comparable(t[test], e[test]):
            for i, penalty in enumerate(PENALTIES):
                predicted = _predict(x[train], t[train], e[train], x[test], _penalties(is_code, penalty))
                scores[i] += concordance_index(t[test], -predicted, e[test])
    return PENALTIES[int(scores.argmax())]


def _penalties(is_code: np.ndarray, penalty: float) -> np.ndarray:
    return np.where(is_code, penalty, COVARIATE_PENALTY)


def _comparable(t: np.ndarray, e: np.ndarray) -> bool:
    """Whether there is a pair of patients of whom one is known to have lived longer."""
    return bool(e.any()) and bool((t > t[e > 0].min()).any())


def _predict(x: np.ndarray, t: np.ndarray, e: np.ndarray, new: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Log hazard of new patients, relative to the mean training patient."""
    mean, sd = x.mean(0), x.std(0)
    sd = np.where(sd > 1e-9, sd, np.inf)  # what did not vary says nothing
    return ((new - mean) / sd) @ ridge_cox((x - mean) / sd, t, e, penalty)


def ridge_cox(x: np.ndarray, time: np.ndarray, event: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Coefficients that maximise the mean log partial likelihood (Breslow's ties) less ``sum(penalty * beta**2) / 2``.

    Newton steps, halved until the objective grows; the second derivative needs two matrix products. lifelines has the
    same objective and takes a hundred times as long, which cross-validation would feel.
    """
    order = np.argsort(-time, kind="stable")
    x, time, event = x[order], time[order], event[order] > 0
    # The risk set of a patient: all down to the last with the same time, in descending order of time.
    last = np.searchsorted(-time, -time, side="right") - 1
    beta, n = np.zeros(x.shape[1]), len(x)

    def objective(beta: np.ndarray) -> float:
        score = x @ beta
        risk = np.logaddexp.accumulate(score)[last]
        return float((score - risk)[event].sum() / n - (penalty * beta**2).sum() / 2)

    value = objective(beta)
    for _ in range(50):
        score = x @ beta
        weight = np.exp(score - score.max())
        at_risk = weight.cumsum()[last]
        means = (weight[:, None] * x).cumsum(0)[last[event]] / at_risk[event, None]
        # Each patient's share in the risk sets of all events up to the patient's own time.
        share = np.bincount(last[event], 1 / at_risk[event], minlength=n)[::-1].cumsum()[::-1]
        gradient = (x[event] - means).sum(0) / n - penalty * beta
        hessian = ((x * (weight * share)[:, None]).T @ x - means.T @ means) / n + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and not (grown := objective(beta + size * step)) >= value:
            size /= 2
        if size <= 1e-6:
            break
        beta, gain, value = beta + size * step, grown - value, grown
        if gain < 1e-10:
            break
    return beta
