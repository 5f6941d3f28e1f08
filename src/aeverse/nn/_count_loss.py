"""Count likelihoods on library size x softmax, with analytic gradients: one matrix product, one pass, nothing kept.

A count ``x`` of cell ``i`` and gene ``g`` has the mean ``mu = library_i * softmax(hidden_i @ weight.T + bias)_g``. The
logits of a block of cells are turned in place into means and then into gradients, while they are still in cache: on the CPU
by compiled loops (`_kernels`), elsewhere by torch's operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aeverse.nn._rows import SparseRows
from aeverse.nn._special import log_rising_factorial, runs_compiled

BLOCK_ENTRIES = 1_000_000  # entries of a block of logits: a batch of most data, and what stays near the processor


def block_rows(n_features: int) -> int:
    """How many cells make one block."""
    return max(8, BLOCK_ENTRIES // max(n_features, 1))


def softmax_means(hidden: Tensor, weight: Tensor, bias: Tensor, library: Tensor) -> Tensor:
    """Means ``library * softmax(hidden @ weight.T + bias)``, shape (cells, genes)."""
    return _scaled_softmax(torch.addmm(bias, hidden, weight.T), library)


def _scaled_softmax(logits: Tensor, library: Tensor) -> Tensor:
    """Means, in the memory of the logits."""
    logits -= logits.amax(1, keepdim=True)
    logits.exp_()
    logits *= library / logits.sum(1, keepdim=True)
    return logits


class _CountLoss(torch.autograd.Function):
    """Negative log-likelihood of counts, summed over cells and genes."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, counts: SparseRows, library, dispersion):
        # the bias as one more loading, of a hidden unit that is always 1: its gradient then costs no pass of its own
        hidden, weight = torch.cat([hidden, torch.ones_like(library)], 1), torch.cat([weight, bias[:, None]], 1)
        d_hidden, d_weight, loss = torch.empty_like(hidden), torch.zeros_like(weight), hidden.new_zeros(())
        step = min(block_rows(len(weight)), max(len(hidden), 1))
        memory = hidden.new_empty(step, len(weight))  # for all blocks: fresh memory costs as much as arithmetic
        block_loss = _compiled if runs_compiled(hidden) else _by_operations
        for start in range(0, len(hidden), step):
            part = counts.rows(start, start + step)
            rows, h = slice(start, start + step), hidden[start : start + step]
            logits = torch.mm(h, weight.T, out=memory[: len(h)])
            value, gradient = block_loss(logits, part, dispersion, library[rows])
            loss += value
            d_weight.addmm_(gradient.T, h)
            torch.mm(gradient, weight, out=d_hidden[rows])
        ctx.save_for_backward(d_hidden[:, :-1], d_weight[:, :-1], d_weight[:, -1])
        return loss

    @staticmethod
    def backward(ctx, scale):
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        return scale * d_hidden, scale * d_weight, scale * d_bias, None, None, None


def _compiled(logits: Tensor, part: SparseRows, dispersion: Tensor | None, library: Tensor) -> tuple[float, Tensor]:
    """Loss and gradient by the logits, in their memory; on the CPU in single precision."""
    from aeverse.nn import _kernels  # numba takes a second to load

    counts = part.pointers.numpy(), part.columns.numpy(), part.values.numpy()
    size = library.ravel().numpy()
    if dispersion is None:
        return _kernels.poisson(logits.numpy(), *counts, size), logits
    return _kernels.negative_binomial(logits.numpy(), *counts, dispersion.numpy(), size), logits


def _by_operations(
    logits: Tensor, part: SparseRows, dispersion: Tensor | None, library: Tensor
) -> tuple[Tensor, Tensor]:
    """The same with torch's operations, on any device."""
    mu, entry = _scaled_softmax(logits, library), part.flat_index()
    if dispersion is None:
        return _poisson(mu, entry, part, library)
    gradient = torch.empty_like(mu)
    return _negative_binomial(mu, entry, part, dispersion, library, out=gradient), gradient


def _poisson(mu: Tensor, entry: Tensor, part: SparseRows, library: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and its gradient by the logits in the memory of ``mu``: mu - x where the library size is the sum of x."""
    x, flat = part.values, mu.view(-1)
    loss = mu.sum() + (torch.lgamma(x + 1) - x * flat[entry].clamp_min(1e-30).log()).sum()
    mu *= part.row_sums() / library.clamp_min(1e-30)
    flat[entry] -= x
    return loss, mu


def _negative_binomial(
    mu: Tensor, entry: Tensor, part: SparseRows, theta: Tensor, library: Tensor, out: Tensor
) -> Tensor:
    """Loss; its gradient by the logits goes to `out`. By log(mu) it is posterior mean - x; the softmax centers it."""
    x = part.values
    stored = mu.view(-1)[entry]
    t = theta[part.columns]
    gradient = torch.add(mu, theta, out=out)
    torch.div(theta, gradient, out=gradient)
    loss = -(_log_of_products(gradient) @ theta)  # every entry as if it were zero
    loss += (x * (torch.log(t + stored) - stored.clamp_min(1e-30).log())).sum()
    loss += (torch.lgamma(x + 1) - log_rising_factorial(t, x)).sum()
    gradient *= mu  # the posterior mean of an entry without counts
    gradient.view(-1)[entry] = stored * (t + x) / (t + stored) - x
    mu *= gradient.sum(1, keepdim=True) / library.clamp_min(1e-30)
    gradient.sub_(mu)
    return loss


def _log_of_products(x: Tensor, n: int = 4) -> Tensor:
    """``log(x).sum(0)`` for values in (0, 1], with one logarithm for the product of `n` of them."""
    whole = len(x) // n * n
    products = x[: whole // n].clone()
    for i in range(1, n):
        products *= x[whole // n * i : whole // n * (i + 1)]
    return products.clamp_min_(torch.finfo(x.dtype).tiny).log_().sum(0) + x[whole:].log().sum(0)


def count_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor, counts: SparseRows, library: Tensor, dispersion: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of sparse counts under Poisson or negative binomial, on library size x softmax.

    Parameters
    ----------
    hidden
        Last hidden layer of the decoder, (cells, d).
    weight, bias
        Output layer, (genes, d) and (genes,).
    counts
        Observed counts.
    library
        Library sizes, (cells, 1).
    dispersion
        Gene-wise dispersions theta (genes,), variance ``mu + mu**2 / theta``; None for Poisson.

    Returns
    -------
    The sum over cells and genes; differentiable in hidden, weight and bias.

    Examples
    --------
    >>> import torch, scipy.sparse as sp
    >>> from aeverse.nn import SparseRows, count_loss
    >>> counts = SparseRows.from_scipy(sp.csr_matrix([[1.0, 0, 2]]))
    >>> loss = count_loss(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(3), counts, counts.row_sums())
    >>> round(loss.item(), 4) == round(3 + 0.6931, 4)  # every mean is 1
    True
    """
    return _CountLoss.apply(hidden, weight, bias, counts, library, dispersion)
