"""Cox models: hazard ratios, and how well a ridge Cox model on an embedding predicts patients that it has not seen."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse.tl._outcome import names_in_order
from aeverse.tl._survival_scores import d_calibration, integrated_brier, survival_curves

PENALTIES = (0.01, 0.1, 1.0, 10.0)  # ridge on the standardized embedding; chosen in inner folds
USUAL_COLUMNS = 32  # of an embedding; more columns than patients weigh together as much as so many
COVARIATE_PENALTY = 0.01  # a handful of clinical covariates needs hardly any
INNER_FOLDS = 3
DOUBTFUL = 0.01  # p-value of the test of proportional hazards


def terms_of(values: pd.Series, name: str, event: pd.Series) -> pd.DataFrame:
    """Columns of a Cox model: the number itself, or one for each category but the most frequent; NaN if unknown.

    The hazard of a category without events cannot be estimated (its logarithm runs to minus infinity): it is left out.
    """
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        values = values.astype(np.float64)
        if np.isinf(values).any():
            raise ValueError(f"obs[{name!r}] holds infinite values; set what is missing to NaN.")
        return values.rename(name).to_frame()
    order = names_in_order(values)
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
    levels = [v for v in order if v in base and v != base[0]]
    terms = pd.DataFrame({f"{name}: {v} vs {base[0]}": (words == v).astype(float) for v in levels}, index=words.index)
    terms[words.isna() | words.isin(without)] = np.nan
    return terms.reindex(values.index)


def cox(time: pd.Series, event: pd.Series, predictors: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Hazard ratios of each predictor alone and, if there are several, of all together."""
    columns = [_one_cox(time, event, terms, "alone") for terms in predictors.values()]
    if len(predictors) > 1:
        columns.append(_one_cox(time, event, pd.concat(predictors.values(), axis=1), "together"))
    table = _slots.numbered(pd.concat(columns))
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
    summary = fit.summary
    table = pd.DataFrame(
        {
            "model": model,
            "term": list(terms.columns),
            "hazard_ratio": summary["exp(coef)"].to_numpy(),
            "lower": summary["exp(coef) lower 95%"].to_numpy(),
            "upper": summary["exp(coef) upper 95%"].to_numpy(),
            "z": summary["z"].to_numpy(),
            "p": summary["p"].to_numpy(),
            "ph_p": proportional_hazard_test(fit, frame, time_transform="rank").summary["p"].reindex(names).to_numpy(),
            "patients": int(use.sum()),
            "events": int(event[use].sum()),
        }
    )
    return table[columns]


def cross_validated(
    time: pd.Series,
    event: pd.Series,
    code: pd.DataFrame,
    clinical: pd.DataFrame | None,
    n_splits: int,
    random_state: int,
    *,
    name: str,
) -> tuple[dict[str, pd.DataFrame], pd.Series]:
    """Scores of the held-out patients for code (called `name`), covariates, both and nothing; their risk by the embedding alone.

    The scores are tables, ``held_out`` by fold and ``calibration`` over all folds.
    """
    from lifelines.utils import concordance_index
    from sklearn.model_selection import StratifiedKFold

    use = time.notna() if clinical is None else time.notna() & clinical.notna().all(axis=1)
    t, e = time[use].to_numpy(), event[use].to_numpy()
    fewest = int(min(e.sum(), (1 - e).sum()))
    if not 2 <= n_splits <= fewest:
        raise ValueError(
            f"n_splits={n_splits}: must be between 2 and {fewest}, the number of events (or of censored patients)."
        )
    sets = _sets_of_predictors(code[use].to_numpy(), None if clinical is None else clinical[use].to_numpy(), name)
    rows, risk = [], np.full(len(t), np.nan)
    survival = {predictors: np.full(len(t), np.nan) for predictors in sets}  # at each patient's time
    for fold, (train, test) in enumerate(
        StratifiedKFold(n_splits, shuffle=True, random_state=random_state).split(code[use], e)
    ):
        for predictors, (x, is_code) in sets.items():
            penalty = choose_penalty(x[train], t[train], e[train], is_code, random_state)
            predicted = predict(x[train], t[train], e[train], x, is_code, penalty)
            curves = survival_curves(predicted[train], t[train], e[train], predicted[test])
            survival[predictors][test] = curves.of_each(t[test])
            if predictors == name:
                risk[test] = predicted[test]
            if comparable(t[test], e[test]):
                c_index = concordance_index(t[test], -predicted[test], e[test])
                brier = integrated_brier(curves, t[test], e[test], t[train], e[train])
                used_penalty = penalty if is_code.any() else np.nan
                rows.append((predictors, fold, c_index, brier, used_penalty, len(test), int(e[test].sum())))
    columns = ["predictors", "fold", "c_index", "integrated_brier", "penalty", "patients", "events"]
    tested = {predictors: (*d_calibration(values, e), len(t)) for predictors, values in survival.items()}
    calibration = pd.DataFrame.from_dict(tested, orient="index", columns=["d_calibration", "p", "patients"])
    tables = {"held_out": _slots.numbered(pd.DataFrame(rows, columns=columns)), "calibration": calibration}
    return tables, pd.Series(risk, time.index[use]).reindex(time.index)


def _sets_of_predictors(
    code: np.ndarray, clinical: np.ndarray | None, name: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Columns, and which of them are the embedding's, by the name of a set; ``"none"`` is the Kaplan-Meier curve."""
    is_code = np.ones(code.shape[1], bool)
    sets = {"none": (code[:, :0], is_code[:0]), name: (code, is_code)}
    if clinical is not None:
        not_code = np.zeros(clinical.shape[1], bool)
        sets["covariates"] = (clinical, not_code)
        sets[f"{name} + covariates"] = (np.hstack([code, clinical]), np.r_[is_code, not_code])
    return sets


def choose_penalty(x: np.ndarray, t: np.ndarray, e: np.ndarray, is_code: np.ndarray, random_state: int) -> float:
    """The penalty on the embedding with the best mean C-index in inner folds."""
    from lifelines.utils import concordance_index
    from sklearn.model_selection import StratifiedKFold

    if not is_code.any() or min(e.sum(), (1 - e).sum()) < INNER_FOLDS:
        return PENALTIES[1]
    scores = np.zeros(len(PENALTIES))
    for train, test in StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=random_state).split(x, e):
        if comparable(t[test], e[test]):
            training, new, columns = _standardized(x[train], x[test], is_code)
            for i, penalty in enumerate(PENALTIES):
                predicted = new @ ridge_cox(training, t[train], e[train], penalties(columns, penalty))
                scores[i] += concordance_index(t[test], -predicted, e[test])
    return PENALTIES[int(scores.argmax())]


def penalties(is_code: np.ndarray, penalty: float) -> np.ndarray:
    return np.where(is_code, penalty, COVARIATE_PENALTY)


def comparable(t: np.ndarray, e: np.ndarray) -> bool:
    """Whether there is a pair of patients of whom one is known to have lived longer."""
    return bool(e.any()) and bool((t > t[e > 0].min()).any())


def predict(
    x: np.ndarray, t: np.ndarray, e: np.ndarray, new: np.ndarray, is_code: np.ndarray, penalty: float
) -> np.ndarray:
    """Log hazard of new patients, relative to the mean training patient."""
    training, new, columns = _standardized(x, new, is_code)
    return new @ ridge_cox(training, t, e, penalties(columns, penalty))


def _standardized(x: np.ndarray, new: np.ndarray, is_code: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns in standard deviations of the training patients, and which of them are the embedding's.

    More columns of an embedding than patients are rotated into the space that the patients span: a rotation changes no ridge.
    """
    mean, sd = x.mean(0), x.std(0)
    sd = np.where(sd > 1e-9, sd, np.inf)  # what did not vary says nothing
    x, new = (x - mean) / sd, (new - mean) / sd
    n_code = int(is_code.sum())
    if n_code <= len(x):
        return x, new, is_code
    x_code, new_code = (values[:, is_code] * np.sqrt(USUAL_COLUMNS / n_code) for values in (x, new))
    squares, axes = np.linalg.eigh(x_code @ x_code.T)
    varying = squares > 1e-9 * squares[-1]
    axes = x_code.T @ (axes[:, varying] / np.sqrt(squares[varying]))
    columns = np.r_[np.ones(axes.shape[1], bool), np.zeros(len(is_code) - n_code, bool)]
    return np.hstack([x_code @ axes, x[:, ~is_code]]), np.hstack([new_code @ axes, new[:, ~is_code]]), columns


def ridge_cox(x: np.ndarray, time: np.ndarray, event: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Coefficients that maximize the mean log partial likelihood (Breslow's ties) less ``sum(penalty * beta**2) / 2``.

    Newton steps, halved until the objective grows; the second derivative needs two matrix products. lifelines has the
    same objective and takes a hundred times as long, which cross-validation would feel.
    """
    if x.shape[1] == 0:
        return np.zeros(0)
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
