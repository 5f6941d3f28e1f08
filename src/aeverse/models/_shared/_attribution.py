"""Integrated gradients: which features carry a dimension of the code, or what sets a group of samples apart.

All encoders begin with an affine map of the features (as their input layers or fronts have standardized them). On a
straight path from a baseline to a sample the output of that map is straight too, so that the rest, a few hundred numbers
wide, is all that has to be differentiated along it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from aeverse.nn import Ensemble, SparseRows
from aeverse.train import Samples

N_STEPS = 16  # nodes of the Gauss-Legendre quadrature along the path
MOST_SAMPLES = 2000  # of all, or of a group
N_PARTS = 20  # parts of the samples, which are drawn again and again
N_RESAMPLES = 50

Function = Callable[[Tensor, Tensor], Tensor]  # (rows, hidden) and (rows, context) to (rows, outputs)


@dataclass
class Side:
    """One matrix that a net reads: standardized values (samples, features), the weights that they meet first (features,
    hidden), their positions among all features of the data (-1: no feature), and which samples have it.
    """

    x: sp.csr_matrix | np.ndarray
    weight: Tensor
    positions: np.ndarray
    present: np.ndarray

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """Mean of the samples that have it, (features,)."""
        rows = rows[self.present[rows]]
        return np.asarray(self.x[rows].mean(0), np.float64).ravel() if len(rows) else np.zeros(self.x.shape[1])

    def deviations(self, rows: np.ndarray, baseline: np.ndarray) -> Tensor:
        """How far samples lie from a baseline, (rows, features); zero for those that do not have it."""
        x = self.x[rows]
        difference = (x.toarray() if sp.issparse(x) else x) - baseline
        return torch.as_tensor(
            difference * self.present[rows, None], dtype=self.weight.dtype, device=self.weight.device
        )


@dataclass
class Net:
    """A net behind its first affine maps.

    ``hidden``: their outputs side by side, (samples, hidden). ``context``: what else it is given, (samples, any). ``code``:
    from both to the code.
    """

    sides: dict[str, Side]
    hidden: Tensor
    context: Tensor
    code: Function


@dataclass
class Attribution:
    """Values and their stability, both (features read, columns), and the positions of these features."""

    values: np.ndarray
    stability: np.ndarray
    positions: np.ndarray


def mean_jacobian(function: Function, start: Tensor, end: Tensor, context: Tensor, n_steps: int = N_STEPS) -> Tensor:
    """Mean of a function's Jacobian along straight paths, (rows, outputs, inputs).

    Its product with ``end - start`` is what the outputs change by: integrated gradients are complete
    [Sundararajan2017]_.

    Parameters
    ----------
    function
        From inputs and context to outputs, row by row.
    start, end
        (rows, inputs).
    context
        (rows, any).
    n_steps
        Nodes of the quadrature.
    """
    nodes, weights = (
        torch.as_tensor(a / 2, dtype=end.dtype, device=end.device) for a in np.polynomial.legendre.leggauss(n_steps)
    )
    points = torch.cat([torch.lerp(start, end, float(node) + 0.5) for node in nodes]).requires_grad_()
    with torch.enable_grad():
        outputs = function(points, context.repeat(n_steps, 1))
    means = []
    for j in range(outputs.shape[1]):
        [gradient] = torch.autograd.grad(outputs[:, j].sum(), points, retain_graph=True)
        means.append(torch.einsum("s,srh->rh", weights, gradient.reshape(n_steps, *end.shape)))
    return torch.stack(means, 1)


def of_dimensions(nets: Sequence[Net], n_top: int, rng: np.random.Generator) -> dict[str, Attribution]:
    """How the features move each dimension of the code, by side; the dimensions of several nets stand side by side.

    The slope of a feature's integrated gradients on its values, for one standard deviation of the feature and in standard
    deviations of the dimension; for a linear encoder the weight itself.
    """
    sides = nets[0].sides
    rows = np.sort(rng.permutation(len(nets[0].hidden))[:MOST_SAMPLES])
    parts = _parts(rows, rng)
    baseline = {name: side.mean(rows) for name, side in sides.items()}
    attributions: dict[str, list[np.ndarray]] = {name: [] for name in sides}
    for net in nets:
        unit = _numpy(net.code(net.hidden[rows], net.context[rows])).std(0)
        slopes: dict[str, list[np.ndarray]] = {name: [] for name in sides}
        squares: dict[str, list[np.ndarray]] = {name: [] for name in sides}
        for part in parts:
            deviations, jacobians = _along(net, net.code, part, baseline)
            for name, side in net.sides.items():
                square = deviations[name].square()
                product = torch.einsum("if,ijh->fjh", square, jacobians[name])
                slopes[name].append(_numpy(torch.einsum("fjh,fh->fj", product, side.weight)))
                squares[name].append(_numpy(square.sum(0)))
        for name, side in sides.items():
            n = max(int(side.present[rows].sum()), 1)
            spread = np.sqrt(np.sum(squares[name], 0) / n)[:, None]
            scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0) / np.maximum(unit, 1e-12) / n
            attributions[name].append(np.stack(slopes[name]) * scale)
    return {name: _total(np.concatenate(blocks, 2), sides[name], n_top, rng) for name, blocks in attributions.items()}


def of_groups(
    nets: Sequence[Net], groups: pd.Categorical, n_top: int, rng: np.random.Generator
) -> dict[str, Attribution]:
    """What sets each group apart, by side: shares of the way from the mean of the other samples to the group.

    The way is measured along the line between the mean codes of both. A share is positive where large values of the
    feature lead towards the group, negative where small ones do.
    """
    sides = nets[0].sides
    columns: dict[str, list[Attribution]] = {name: [] for name in sides}
    codes = [net.code(net.hidden, net.context).detach() for net in nets]
    for group in range(len(groups.categories)):
        members = np.flatnonzero(groups.codes == group)
        nonmembers = np.flatnonzero((groups.codes != group) & (groups.codes >= 0))
        baseline = {name: side.mean(nonmembers) for name, side in sides.items()}
        parts = _parts(members[np.sort(rng.permutation(len(members))[:MOST_SAMPLES])], rng)
        sums = {name: np.zeros((len(parts), len(side.positions), 1)) for name, side in sides.items()}
        for net, code in zip(nets, codes, strict=True):
            difference = (code[members].mean(0) - code[nonmembers].mean(0))[:, None]
            for p, part in enumerate(parts):
                deviations, jacobians = _along(net, _onto(net.code, difference), part, baseline)
                for name, side in net.sides.items():
                    gradient = jacobians[name][:, 0] @ side.weight.T
                    sums[name][p, :, 0] += _numpy((deviations[name] * gradient).sum(0))
        total = abs(sum(block_sums.sum() for block_sums in sums.values())) or 1.0
        for name, side in sides.items():
            direction = np.sign(side.mean(members) - baseline[name])[:, None]
            columns[name].append(_total(sums[name] / total * direction, side, n_top, rng))
    return {
        name: Attribution(
            np.hstack([c.values for c in block_sums]),
            np.hstack([c.stability for c in block_sums]),
            sides[name].positions,
        )
        for name, block_sums in columns.items()
    }


def _onto(function: Function, direction: Tensor) -> Function:
    """The outputs of a function along one direction."""
    return lambda hidden, context: function(hidden, context) @ direction


def _along(net: Net, function: Function, rows: np.ndarray, baseline: dict[str, np.ndarray]):
    """Of each side, how far the samples are from the baseline, and the mean Jacobian by its part of `hidden`."""
    deviations = {name: side.deviations(rows, baseline[name]) for name, side in net.sides.items()}
    way = torch.cat([deviations[name] @ side.weight for name, side in net.sides.items()], 1)
    end = net.hidden[rows]
    jacobian = mean_jacobian(function, end - way, end, net.context[rows])
    widths = [side.weight.shape[1] for side in net.sides.values()]
    return deviations, dict(zip(net.sides, jacobian.split(widths, 2), strict=True))


def _parts(rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """SparseRows in parts of about equal size, at random."""
    return [part for part in np.array_split(rng.permutation(rows), min(N_PARTS, len(rows))) if len(part)]


def _total(sums: np.ndarray, side: Side, n_top: int, rng: np.random.Generator) -> Attribution:
    """Total over the parts (parts, features, columns), and how often a feature is among the strongest in resamples."""
    total, n_top, often = sums.sum(0), min(n_top, sums.shape[1]), np.zeros(sums.shape[1:])
    for _ in range(N_RESAMPLES):
        multiplicity = np.bincount(rng.integers(len(sums), size=len(sums)), minlength=len(sums))
        values = np.tensordot(multiplicity, sums, 1)
        strength = np.where(np.sign(values) == np.sign(total), np.abs(values), 0)
        least = -np.partition(-strength, n_top - 1, axis=0)[n_top - 1]
        often += (strength >= least) & (strength > 0)
    return Attribution(total.astype(np.float32), (often / N_RESAMPLES).astype(np.float32), side.positions)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().astype(np.float64)


# ---- the nets of the estimators ----------------------------------------------------------------------------------
def net_of_ensemble(ensemble: Ensemble, inputs: np.ndarray, samples: Samples) -> Net:
    """The members of an ensemble as one net, for its samples; `inputs` are positions of the features that it reads."""
    encoders = [member.encoder for member in ensemble.members]
    values: list[sp.csr_matrix | np.ndarray] = []
    hidden: list[Tensor] = []
    with torch.no_grad():
        for _, batch in samples.blocks(1024):
            x = encoders[0].standardized(batch.x, batch.library)  # all members are given the same
            values.append(x.to_scipy() if isinstance(x, SparseRows) else x.cpu().numpy())
            hidden.append(torch.cat([e.hidden(batch.x, batch.library, batch.covariate) for e in encoders], 1))
    if not values:
        raise ValueError("none of the samples in data holds anything; there is nothing to attribute.")
    stacked = sp.vstack(values, format="csr") if sp.issparse(values[0]) else np.vstack(values)
    extra = stacked.shape[1] - len(inputs)  # what an input layer adds is no feature
    positions = np.concatenate([inputs, np.full(extra, -1)])
    weights = torch.cat([encoder.input_weights.detach() for encoder in encoders], 1)
    context = torch.zeros(len(samples), 0, device=weights.device)
    side = Side(stacked, weights, positions, samples.measured())

    def code(hidden: Tensor, context: Tensor) -> Tensor:
        parts = hidden.chunk(len(encoders), 1)
        latent = torch.cat([e.from_hidden(h).mean for e, h in zip(encoders, parts, strict=True)], 1)
        return latent if ensemble.units is None else ensemble.units(latent)

    return Net({"": side}, torch.cat(hidden), context, code)
