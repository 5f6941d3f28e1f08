"""How good predicted survival is: integrated Brier score, and calibration over the whole distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_BINS = 10  # of D-calibration
FOLLOW_UP = 0.8  # the Brier score is integrated up to this quantile of the training patients' times


@dataclass(frozen=True)
class Curves:
    """Survival of patients, (patients, times), from each of the times on; 1 before the first."""

    times: np.ndarray
    survival: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """Survival of all patients at some times, (patients, times)."""
        return self._from_start()[:, np.searchsorted(self.times, times, side="right")]

    def of_each(self, time: np.ndarray) -> np.ndarray:
        """Survival of each patient at a time of its own, (patients,)."""
        return self._from_start()[np.arange(len(time)), np.searchsorted(self.times, time, side="right")]

    def _from_start(self) -> np.ndarray:
        return np.hstack([np.ones((len(self.survival), 1)), self.survival])


def survival_curves(log_hazard: np.ndarray, time: np.ndarray, event: np.ndarray, new: np.ndarray) -> Curves:
    """Survival of new patients under a Cox model, by Breslow's baseline hazard.

    Parameters
    ----------
    log_hazard, time, event
        Of the training patients, relative to any patient.
    new
        Log hazards of the new patients, relative to the same.
    """
    center = log_hazard.mean()
    order = np.argsort(time, kind="stable")
    at_risk = np.exp(log_hazard - center)[order][::-1].cumsum()[::-1]
    times, first, events = np.unique(time[order], return_index=True, return_counts=True)
    events = np.add.reduceat(event[order], first)
    return Curves(times, np.exp(-np.outer(np.exp(new - center), (events / at_risk[first]).cumsum())))


def integrated_brier(
    curves: Curves, time: np.ndarray, event: np.ndarray, train_time: np.ndarray, train_event: np.ndarray
) -> float:
    """Mean squared error of the predicted survival over the time of follow-up; censored patients as in [Graf1999]_.

    A patient counts until censored, and those who are still known weigh the more (inverse probability of censoring, from
    the training patients). 0 is perfect, 0.25 what a survival of one half at all times has.
    """
    from scipy.integrate import trapezoid

    end = np.quantile(train_time, FOLLOW_UP)
    times = np.unique(train_time[(train_time <= end) & (train_event > 0)])
    if len(times) < 2:
        return np.nan
    uncensored = survival_curves(np.zeros(len(train_time)), train_time, 1 - train_event, np.zeros(1))
    floor = 1 / len(train_time)
    before = np.maximum(uncensored.at(np.nextafter(time, 0))[0], floor)  # just before a patient's own time
    now = np.maximum(uncensored.at(times)[0], floor)
    died = (time[:, None] <= times) & (event[:, None] > 0)
    alive = time[:, None] > times
    survival = curves.at(times)
    error = died * survival**2 / before[:, None] + alive * (1 - survival) ** 2 / now
    return float(trapezoid(error.mean(0), times) / (times[-1] - times[0]))


def d_calibration(survival: np.ndarray, event: np.ndarray) -> tuple[float, float]:
    """Chi-square and p-value of the hypothesis that the predicted survival at the time of death is uniform [Haider2020]_.

    Parameters
    ----------
    survival
        Predicted survival of each patient at the time of death or of censoring.
    event
        1: died, in the bin of that value; 0: censored, spread evenly over all that is below.
    """
    from scipy.stats import chi2

    lower = np.arange(N_BINS) / N_BINS
    overlap = np.clip(survival[:, None] - lower, 0, 1 / N_BINS)  # of each bin with what is below
    bins = np.minimum((survival * N_BINS).astype(int), N_BINS - 1)
    shares = np.where(event[:, None] > 0, np.eye(N_BINS)[bins], overlap / np.maximum(survival, 1e-12)[:, None])
    expected = shares.sum() / N_BINS
    statistic = float(((shares.sum(0) - expected) ** 2 / expected).sum())
    return statistic, float(chi2.sf(statistic, N_BINS - 1))
