"""Integrated gradients: which features carry a dimension of the code, or what sets a group of samples apart.

All encoders begin with an affine map of the features (as their input layers or fronts have standardised them). On a
straight path from a baseline to a sample the output of that map is straight too, so that the rest, a few hundred numbers
wide, is all that has to be differentiated along it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

N_STEPS = 16  # nodes of the Gauss-Legendre quadrature along the path
MOST_SAMPLES = 2000  # of all, or of a group
N_PARTS = 20  # parts of the samples that are drawn again and again
N_RESAMPLES = 50
BLOCK = 256


@dataclass
class Side:
    """One matrix that a net reads: standardised values (samples, features), the affine map that they meet first
    (features, hidden), and their positions among all features of the data.
    """

    x: sp.csr_matrix | np.ndarray
    weight: Tensor
    positions: np.ndarray

    def rows(self, rows: np.ndarray) -> Tensor:
        """Values of some samples, dense."""
        x = self.x[rows]
        return torch.as_tensor(np.asarray(x.toarray() if sp.issparse(x) else x), dtype=self.weight.dtype)


@dataclass
class Net:
    """A net behind its first affine maps.

    ``hidden``: their outputs side by side, (samples, hidden). ``told``: what else it is told, (samples, any).
    ``code``: from one row of both to the code, (dimensions,).
    """

    sides: dict[str, Side]
    hidden: Tensor
    told: Tensor
    code: Callable[[Tensor, Tensor], Tensor]


@dataclass
class Attribution:
    """Values and their stability, both (features read, columns), and the positions of these features."""

    values: np.ndarray
    stability: np.ndarray
    positions: np.ndarray


def mean_jacobian(
    function: Callable[[Tensor, Tensor], Tensor], start: Tensor, end: Tensor, told: Tensor, n_steps: int = N_STEPS
) -> Tensor:
    """Mean of a function's Jacobian along straight paths, (rows, outputs, inputs).

    Its product with ``end - start`` is what the outputs change by: integrated gradients are complete
    [Sundararajan2017]_.

    Parameters
    ----------
    function
        From one row of inputs, and one of what it is told, to the outputs.
    start, end
        (rows, inputs).
    told
        (rows, any).
    n_steps
        Nodes of the quadrature.
    """
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    jacobian = torch.func.vmap(torch.func.jacrev(function))
    total = None
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        part = float(weight) * jacobian(torch.lerp(start, end, float(node)), told).detach()
        total = part if total is None else total + part
    return total


def of_dimensions(nets: Sequence[Net], n_top: int, rng: np.random.Generator) -> dict[str, Attribution]:
    """How the features move each dimension of the code, by side; the dimensions of several nets stand side by side.

    The slope of a feature's attributions on its values, for one standard deviation of the feature and in standard
    deviations of the dimension; in a linear encoder the weight itself.
    """
    n = len(nets[0].hidden)
    rows = np.sort(rng.permutation(n)[:MOST_SAMPLES])
    parts = _parts(len(rows), rng)
    found: dict[str, list[np.ndarray]] = {name: [] for name in nets[0].sides}
    for net in nets:
        baseline = {name: side.rows(rows).mean(0) for name, side in net.sides.items()}
        code = torch.func.vmap(net.code)(net.hidden[rows], net.told[rows]).detach()
        unit = code.std(0, correction=0).clamp_min(1e-12).cpu().numpy()
        sums = {name: np.zeros((len(parts), len(side.positions), len(unit))) for name, side in net.sides.items()}
        for p, part in enumerate(parts):
            for start in range(0, len(part), BLOCK):
                mine = rows[part[start : start + BLOCK]]
                deviations, jacobians = _along(net, net.code, mine, baseline)
                for name, side in net.sides.items():
                    product = torch.einsum("if,ijh->fjh", deviations[name].square(), jacobians[name])
                    sums[name][p] += torch.einsum("fjh,fh->fj", product, side.weight).cpu().numpy()
        for name, side in net.sides.items():
            spread = np.sqrt(np.mean([side.rows(rows[part]).var(0, correction=0).numpy() for part in parts], 0))
            scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0)[:, None] / unit / len(rows)
            found[name].append(sums[name] * scale)
    return {
        name: _attribution(np.concatenate(own, 2), nets[0].sides[name].positions, n_top, rng)
        for name, own in found.items()
    }


def of_groups(
    nets: Sequence[Net], groups: pd.Categorical, n_top: int, rng: np.random.Generator
) -> dict[str, Attribution]:
    """What sets each group apart, by side: the share of the way from the mean of the other samples to the group.

    The way is that along the line between the mean codes of both; shares are positive where large values of the feature
    lead towards the group, negative where small ones do.
    """
    n = len(nets[0].hidden)
    codes = [torch.func.vmap(net.code)(net.hidden, net.told).detach() for net in nets]
    columns: dict[str, list[Attribution]] = {name: [] for name in nets[0].sides}
    for group in range(len(groups.categories)):
        mine, others = np.flatnonzero(groups.codes == group), np.flatnonzero(groups.codes != group)
        others = others[groups.codes[others] >= 0]
        rows = mine[np.sort(rng.permutation(len(mine))[:MOST_SAMPLES])]
        parts = _parts(len(rows), rng)
        sums = {name: np.zeros((len(parts), len(side.positions), 1)) for name, side in nets[0].sides.items()}
        baseline = {name: _mean(side.x, others) for name, side in nets[0].sides.items()}
        for net, code in zip(nets, codes, strict=True):
            away = (code[mine].mean(0) - code[others].mean(0))[:, None]

            def towards(hidden: Tensor, told: Tensor, net: Net = net, away: Tensor = away) -> Tensor:
                return net.code(hidden, told) @ away

            for p, part in enumerate(parts):
                for start in range(0, len(part), BLOCK):
                    block = rows[part[start : start + BLOCK]]
                    deviations, jacobians = _along(
                        net, towards, block, {m: b.to(code.dtype) for m, b in baseline.items()}
                    )
                    for name, side in net.sides.items():
                        gradient = jacobians[name][:, 0] @ side.weight.T
                        sums[name][p, :, 0] += (deviations[name] * gradient).sum(0).cpu().numpy()
        total = sum(own.sum() for own in sums.values())
        for name, side in nets[0].sides.items():
            direction = np.sign((_mean(side.x, mine) - baseline[name]).numpy())
            shares = sums[name] / (abs(total) or 1.0) * direction[:, None]
            columns[name].append(_attribution(shares, side.positions, n_top, rng))
    assert n == len(groups)
    return {
        name: Attribution(
            np.hstack([c.values for c in own]), np.hstack([c.stability for c in own]), nets[0].sides[name].positions
        )
        for name, own in columns.items()
    }


def _along(net: Net, function, rows: np.ndarray, baseline: Mapping[str, Tensor]):
    """Of each side, how far the samples are from the baseline, and the mean Jacobian by its part of `hidden`."""
    deviations = {name: side.rows(rows) - baseline[name] for name, side in net.sides.items()}
    way = torch.cat([deviations[name].to(side.weight.device) @ side.weight for name, side in net.sides.items()], 1)
    end = net.hidden[rows]
    jacobian = mean_jacobian(function, end - way, end, net.told[rows])
    widths = [side.weight.shape[1] for side in net.sides.values()]
    return deviations, dict(zip(net.sides, jacobian.split(widths, 2), strict=True))


def _parts(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Positions in parts of about equal size, at random."""
    return [part for part in np.array_split(rng.permutation(n), min(N_PARTS, n)) if len(part)]


def _attribution(sums: np.ndarray, positions: np.ndarray, n_top: int, rng: np.random.Generator) -> Attribution:
    """Total over the parts (parts, features, columns), and how often a feature is among the strongest in resamples."""
    total = sums.sum(0)
    n_parts, n_features, _ = sums.shape
    n_top = min(n_top, n_features)
    often = np.zeros_like(total)
    for _ in range(N_RESAMPLES):
        drawn = np.bincount(rng.integers(n_parts, size=n_parts), minlength=n_parts)
        values = np.tensordot(drawn, sums, 1)
        strength = np.where(np.sign(values) == np.sign(total), np.abs(values), 0)
        least = -np.partition(-strength, n_top - 1, axis=0)[n_top - 1]
        often += (strength >= least) & (strength > 0)
    return Attribution(total.astype(np.float32), (often / N_RESAMPLES).astype(np.float32), positions)


def _mean(x: sp.csr_matrix | np.ndarray, rows: np.ndarray) -> Tensor:
    return torch.as_tensor(np.asarray(x[rows].mean(0), np.float64).ravel())
