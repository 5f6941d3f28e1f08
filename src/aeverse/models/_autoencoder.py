"""The autoencoder of one matrix, as an estimator."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse import _settings, _slots, io
from aeverse.models._genes import log_normalized_moments, overdispersed
from aeverse.nn import (
    AutoencoderNet,
    Batch,
    CountInput,
    Decoder,
    Encoder,
    Ensemble,
    GammaPosterior,
    NegativeBinomial,
    Poisson,
    Rows,
    Thinning,
)
from aeverse.train import Samples, Schedule, split_molecules, train

if TYPE_CHECKING:
    from anndata import AnnData

FEWEST_STEPS, FEWEST_EPOCHS = 350, 8
NO_COUNTS = -1e4  # logit of a gene without molecules: its mean is exactly zero
JUDGED_CELLS = 300  # cells whose held-out molecules are looked at after each epoch
DISPERSION_CELLS = 5000  # cells from which the final dispersions are fitted
BLOCK_ENTRIES = 1_000_000  # entries of a block of decoded values: what stays in cache
SMALLEST_SHARE_OF_GENES = 0.1  # of the encoder's genes that new data must have


@dataclasses.dataclass(frozen=True)
class Config:
    """What an autoencoder is, apart from what it learns.

    Parameters
    ----------
    likelihood
        ``"nb"`` or ``"poisson"``.
    regularizer
        ``"denoising"`` (the input is thinned while training) or None.
    n_latent
        Dimensions of the code (of each member).
    n_hidden
        Widths of the encoder's hidden layers.
    n_models
        Members of the ensemble.
    n_inputs
        How many genes the encoder reads, the most overdispersed, where no mask says which.
    n_epochs, batch_size, learning_rate
        Training; fewer epochs where held-out molecules say so. None: 350 steps, and at least 8 epochs.
    prior_precision
        Of the Gaussian prior on the decoder's loadings, 1 / variance.
    share_heldout
        Share of the molecules that training does not see; they decide when to stop and are what is reported.
    random_state
        Seed.
    """

    likelihood: str = "nb"
    regularizer: str | None = "denoising"
    n_latent: int = 32
    n_hidden: tuple[int, ...] = (128,)
    n_models: int = 3
    n_inputs: int = 3000
    n_epochs: int | None = None
    batch_size: int = 128
    learning_rate: float = 4e-3
    prior_precision: float = 300.0
    share_heldout: float = 0.05
    random_state: int = 0

    def __post_init__(self):
        if self.likelihood not in ("nb", "poisson"):
            raise ValueError(f"likelihood={self.likelihood!r} must be 'nb' or 'poisson'.")
        if self.regularizer not in (None, "denoising"):
            raise ValueError(f"regularizer={self.regularizer!r} must be None or 'denoising'.")
        for name in ("n_latent", "n_models", "n_inputs", "n_epochs", "batch_size", "random_state"):
            value, least = getattr(self, name), 0 if name == "random_state" else 1
            if name == "n_epochs" and value is None:
                continue
            if not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name}={value!r} must be an integer, at least {least}.")
            object.__setattr__(self, name, int(value))
        if not 0 < self.share_heldout < 1:
            raise ValueError(f"share_heldout={self.share_heldout!r} must lie between 0 and 1.")
        object.__setattr__(self, "n_hidden", tuple(int(width) for width in self.n_hidden))


class Autoencoder:
    """Autoencoder for counts: fit, encode, decode, save.

    The decoder's mean is the prior of a gamma-Poisson model whose posterior mean, given a cell's own counts, is
    `denoise`. Training stops by the held-out likelihood of that posterior.

    Parameters
    ----------
    **config
        Fields of `Config`.

    Attributes
    ----------
    config
        The frozen `Config`.
    var_names
        Genes, in the order of the decoder's output.
    history
        ``step``, ``loss`` and ``heldout`` (deviance explained on held-out molecules).
    deviance_explained, heldout_deviance_explained
        The same for each gene, and over all genes; on all cells, with the final weights.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> model = ae.models.Autoencoder(n_latent=8, n_models=1, n_epochs=2).fit(adata)
    >>> model.encode(adata).shape
    (700, 8)
    >>> model.decode(model.encode(adata), genes=["CD79A", "LYZ"]).shape
    (700, 2)
    """

    def __init__(self, **config):
        known = {f.name for f in dataclasses.fields(Config)}
        if unknown := set(config) - known:
            raise TypeError(f"Autoencoder does not know {sorted(unknown)}; it takes {sorted(known)}.")
        self.config = Config(**config)
        self.device = torch.device("cpu")
        self.net: Ensemble | None = None
        self.heldout_deviance_explained: float | None = None  # the last thing that a fit learns

    # ---- learning ----------------------------------------------------------------------------------------------
    def fit(
        self,
        adata: AnnData,
        *,
        layer: str | None = None,
        mask_var: str | np.ndarray | None = "auto",
        batch_key: str | None = None,
        device: str = "auto",
        progress: bool | None = None,
    ) -> Autoencoder:
        """Learn from the raw counts of `adata`, which is not changed.

        Parameters
        ----------
        adata
            Cells x genes.
        layer
            Layer with the counts; None is ``adata.X``.
        mask_var
            Column of ``adata.var`` or boolean array: genes that the encoder reads. ``"auto"``: ``highly_variable``
            where present, else the `n_inputs` most overdispersed genes. The decoder explains all genes.
        batch_key
            Column of ``adata.obs`` whose effect encoder and decoder are told.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` …
        progress
            Show a progress bar; None: on a terminal or in a notebook.

        Returns
        -------
        The estimator itself.
        """
        config, rng = self.config, np.random.default_rng(self.config.random_state)
        counts = _slots.read_counts(adata, layer)
        if counts.nnz == 0:
            raise ValueError(
                f"{_slots.place(layer)} holds no counts (shape {counts.shape}); there is nothing to learn."
            )
        mask = _slots.read_mask(adata, mask_var)
        batches = _slots.read_categories(adata, batch_key)
        self.heldout_deviance_explained = None
        self.device = _settings.resolve_device(device)
        self.var_names = pd.Index(adata.var_names.astype(str))
        self.batch_key, self.batches = batch_key, None if batches is None else [str(c) for c in batches.categories]
        seen, heldout = split_molecules(counts, 1 - config.share_heldout, rng)
        if seen.nnz == 0:
            raise ValueError(f"{_slots.place(layer)} holds {int(counts.sum())} molecules, too few to learn from.")
        self.inputs = overdispersed(seen, config.n_inputs) if mask is None else np.flatnonzero(mask)
        samples = self._samples(seen, batches)
        n_steps = config.n_epochs and config.n_epochs * samples.n_batches(config.batch_size)
        n_steps = n_steps or max(FEWEST_STEPS, FEWEST_EPOCHS * samples.n_batches(config.batch_size))
        judged = np.sort(rng.permutation(len(samples))[:JUDGED_CELLS])
        with _settings.seeded(config.random_state):
            expressed = np.asarray(counts.sum(0)).ravel() > 0
            members = (self._new_member(samples, expressed) for _ in range(config.n_models))
            self.net = Ensemble(members).to(self.device)
            self.posterior = GammaPosterior(counts.shape[1]).to(self.device)
            self.history = train(
                self.net,
                samples.shuffled(rng, config.batch_size),
                lambda: self._judge(samples, heldout, judged),
                Schedule(n_steps=n_steps, judge_every=max(1, n_steps // 8), learning_rate=config.learning_rate),
                progress=progress,
            )
        frequency = torch.as_tensor(np.asarray(seen.sum(0)).ravel() / seen.sum(), dtype=torch.float32)
        for member in self.net.members:
            member.orient(frequency.to(self.device))
        self._fit_posterior(samples, np.sort(rng.permutation(len(samples))[:DISPERSION_CELLS]))
        lost, null = self._deviances(samples, heldout, np.arange(len(samples)))
        molecules = np.asarray(heldout.sum(0)).ravel()
        self.deviance_explained = np.where((molecules > 0) & (null > 0), 1 - lost / np.where(null > 0, null, 1), np.nan)
        self.heldout_deviance_explained = float(1 - lost.sum() / null.sum()) if null.sum() > 0 else 0.0
        return self

    def _samples(self, counts: sp.csr_matrix, batches: pd.Categorical | None) -> Samples:
        return Samples(
            counts,
            input_features=self.inputs,
            library=np.asarray(counts.sum(1), np.float32).ravel(),
            covariate=None if batches is None else self._covariates(batches.codes),
            device=self.device,
        )

    def _covariates(self, codes: np.ndarray) -> np.ndarray:
        """One-hot batches; a batch that the model does not know (-1) is the average of those it does."""
        n = len(self.batches)
        return np.vstack([np.eye(n, dtype=np.float32), np.full((1, n), 1 / n, np.float32)])[codes]

    def _new_member(self, samples: Samples, expressed: np.ndarray) -> AutoencoderNet:
        library = samples.library
        median = float(np.median(library[library > 0]))
        mean, sd = log_normalized_moments(samples.inputs, library, median)
        molecules = np.asarray(samples.data.sum(0), np.float64).ravel()
        # a gene of which all molecules are held out is rare, one without molecules is absent
        bias = np.where(expressed, np.log(np.maximum(molecules, 0.5) / molecules.sum()), NO_COUNTS)
        return self._build_member(CountInput(torch.from_numpy(mean), torch.from_numpy(sd), median), bias, len(samples))

    def _build_member(self, input_layer: CountInput | None, bias: np.ndarray, n_samples: int = 1) -> AutoencoderNet:
        config, n_covariates = self.config, len(self.batches or ())
        encoder = None
        if input_layer is not None:
            encoder = Encoder(
                input_layer, len(self.inputs), config.n_hidden, config.n_latent, n_covariates=n_covariates
            )
        start = torch.as_tensor(bias, dtype=torch.float32)
        return AutoencoderNet(
            encoder,
            Decoder(config.n_latent, (), len(bias), bias=start, n_covariates=n_covariates),
            NegativeBinomial(len(bias)) if config.likelihood == "nb" else Poisson(),
            corrupt=Thinning() if config.regularizer == "denoising" else None,
            prior_weight=config.prior_precision / n_samples,
        )

    # ---- judging -----------------------------------------------------------------------------------------------
    def _judge(self, samples: Samples, heldout: sp.csr_matrix, cells: np.ndarray) -> float:
        """Deviance of held-out molecules explained by the posterior mean, with dispersions for the present weights."""
        self._fit_posterior(samples, cells, slopes=(0.0,))  # the slopes matter at the end, and take time
        lost, null = self._deviances(samples, heldout, cells)
        return float(1 - lost.sum() / null.sum()) if null.sum() > 0 else 0.0

    @torch.no_grad()
    def _fit_posterior(self, samples: Samples, cells: np.ndarray, **options) -> None:
        """Dispersions for the present weights; training goes on with them too."""
        self.posterior.fit(lambda: self._means(samples, cells), **options)
        for member in self.net.members:
            if member.likelihood.dispersion is not None:
                member.likelihood.dispersion.copy_(self.posterior.constant_theta)

    def _means(self, samples: Samples, cells: np.ndarray) -> Iterator[tuple[Any, torch.Tensor]]:
        for start in range(0, len(cells), self._block_size()):
            batch = samples.batch(cells[start : start + self._block_size()])
            yield batch.target, self.net.mean(self.net.encode(batch), batch.library, batch.covariate)

    @torch.no_grad()
    def _deviances(self, samples: Samples, heldout: sp.csr_matrix, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poisson deviances of the held-out molecules by gene: of the posterior mean, and of the gene means."""
        total = samples.data.sum()
        share = float(heldout.sum() / total)
        frequency = torch.as_tensor(
            np.asarray(samples.data.sum(0)).ravel() / total, dtype=torch.float32, device=self.device
        )
        judged = frequency > 0  # of a gene that was never seen, even the gene mean says nothing
        lost = torch.zeros(len(frequency), dtype=torch.float64, device=self.device)
        null = torch.zeros_like(lost)
        for start in range(0, len(cells), self._block_size()):
            rows = cells[start : start + self._block_size()]
            batch = samples.batch(rows)
            x = Rows.from_scipy(heldout[rows], self.device).to_dense()
            mu = self.net.mean(self.net.encode(batch), batch.library, batch.covariate)
            mean = self.posterior.mean(mu, batch.target)
            lost += Poisson.deviance(x, mean * share)
            null += Poisson.deviance(x, batch.library * frequency * share)
        return (lost * judged).cpu().numpy(), (null * judged).cpu().numpy()

    def _block_size(self) -> int:
        return max(1, BLOCK_ENTRIES // len(self.var_names))

    # ---- using -------------------------------------------------------------------------------------------------
    def encode(self, adata: AnnData, *, layer: str | None = None) -> np.ndarray:
        """Code of each cell.

        Genes are matched by name: order does not matter, others are ignored, missing ones count as zero (a warning
        says how many were found).

        Parameters
        ----------
        adata
            Cells x genes with raw counts.
        layer
            Layer with the counts; None is ``adata.X``.

        Returns
        -------
        Array of shape (cells, n_models * n_latent).

        Raises
        ------
        ValueError
            Fewer than a tenth of the encoder's genes are there, or the data are not counts.
        """
        samples = self._read_new(adata, layer)
        with torch.no_grad():
            blocks = [self.net.encode(batch) for _, batch in samples.blocks(4096)]
        return torch.cat(blocks).cpu().numpy() if blocks else np.zeros((0, self.n_code), np.float32)

    def decode(
        self,
        code: np.ndarray,
        *,
        genes: Sequence[str] | str | None = None,
        library: float | np.ndarray = 1e4,
        batch: str | None = None,
    ) -> np.ndarray:
        """Decoder's mean: expected counts of codes, before a cell's own counts are taken into account.

        Parameters
        ----------
        code
            (cells, n_models * n_latent), as from `encode`.
        genes
            Names of the genes wanted; None: all.
        library
            Library size that the means add up to (over all genes), a number or one for each cell.
        batch
            For a model with a `batch_key`: the batch as which to decode; None: the average over batches.

        Returns
        -------
        Array of shape (cells, genes).
        """
        self._require_fit()
        columns = self._columns(genes)
        code = np.asarray(code, np.float32)
        if code.ndim != 2 or code.shape[1] != self.n_code:
            raise ValueError(f"code has shape {code.shape}; this model's codes have {self.n_code} columns.")
        library = np.asarray(library, np.float32).reshape(-1, 1)
        if len(library) not in (1, len(code)) or not (library >= 0).all():
            raise ValueError(f"library must be a number, or one for each of the {len(code)} codes, and not negative.")
        library = np.broadcast_to(library, (len(code), 1))
        batch_code = self._batch_code(batch)
        covariate = None if self.batches is None else self._covariates(np.full(len(code), batch_code))
        out = np.empty((len(code), len(columns)), np.float32)
        with torch.no_grad():
            for start in range(0, len(code), self._block_size()):
                rows = slice(start, start + self._block_size())
                z, size = (torch.tensor(a[rows], device=self.device) for a in (code, library))
                own = None if covariate is None else torch.tensor(covariate[rows], device=self.device)
                out[rows] = self.net.mean(z, size, own)[:, columns].cpu().numpy()
        return out

    @torch.no_grad()
    def denoise(
        self,
        adata: AnnData,
        *,
        layer: str | None = None,
        genes: Sequence[str] | str | None = None,
        target_sum: float | None = None,
        code: np.ndarray | None = None,
        return_sd: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Posterior mean of the expected counts, given the model and the cell's own counts.

        ``mu (theta + x) / (theta + mu)``: the decoder's mean `mu` is the prior, the dispersion `theta` says how much it
        is worth against the cell's own count `x`.

        Parameters
        ----------
        adata
            Cells x genes with raw counts, of this experiment or a new one.
        layer
            Layer with the counts; None is ``adata.X``.
        genes
            Names of the genes wanted; None: all.
        target_sum
            What the values of a cell add up to over all genes; None: the cell's own library size.
        code
            Codes of the cells, where they are known already.
        return_sd
            Return the posterior standard deviations too; they include the spread of the ensemble's members.

        Returns
        -------
        Array of shape (cells, genes), or two.
        """
        columns = self._columns(genes)
        samples = self._read_new(adata, layer)
        values = np.empty((len(samples), len(columns)), np.float32)
        sd = np.empty_like(values) if return_sd else None
        for rows, batch, z, mu, shape in self._priors(samples, adata.var_names, code):
            mean = self.posterior.mean(mu, batch.target, shape)
            target = batch.library if target_sum is None else target_sum * (batch.library > 0)
            scale = target / mean.sum(1, keepdim=True).clamp_min(1e-30)
            values[rows] = (mean * scale)[:, columns].cpu().numpy()
            if sd is not None:
                spread = self.net.variance(mu, z, batch.library, batch.covariate)
                variance = self.posterior.variance(mean, mu, shape, spread)
                sd[rows] = (variance.sqrt_() * scale)[:, columns].cpu().numpy()
        return values if sd is None else (values, sd)

    def dropouts(
        self,
        adata: AnnData,
        *,
        depth: float = 10.0,
        threshold: float = 0.5,
        layer: str | None = None,
        genes: Sequence[str] | str | None = None,
        code: np.ndarray | None = None,
    ) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
        """For entries without counts, the probability that there would be some at `depth` times the cell's depth.

        Parameters
        ----------
        adata, layer, genes, code
            As in `denoise`.
        depth
            Multiple of the cell's own sequencing depth.
        threshold
            Probabilities below it are left out of the matrix.

        Returns
        -------
        The probabilities, CSR of shape (cells, genes), 0 where there are counts; the mean probability of the zeros of
        each gene wanted, and that of the zeros of each cell (NaN without zeros).
        """
        if not depth > 1:
            raise ValueError(f"depth={depth!r} must be greater than 1, the cell's own depth.")
        columns = self._columns(genes)
        samples = self._read_new(adata, layer)
        blocks, by_gene, zeros = [], np.zeros(len(columns)), np.zeros(len(columns))
        by_cell = np.full(len(samples), np.nan)
        for rows, batch, _, mu, shape in self._priors(samples, adata.var_names, code):
            probability = self.posterior.seen_deeper(mu, shape, depth)
            probability[batch.target.row_of_entry(), batch.target.columns] = torch.nan  # not zero
            wanted = probability[:, columns].cpu().numpy()
            absent, p = ~np.isnan(wanted), np.nan_to_num(wanted)
            by_gene += p.sum(0)
            zeros += absent.sum(0)
            by_cell[rows] = np.where(absent.any(1), p.sum(1) / np.maximum(absent.sum(1), 1), np.nan)
            blocks.append(sp.csr_matrix(np.where(p >= threshold, p, 0)))
        by_gene = np.where(zeros > 0, by_gene / np.maximum(zeros, 1), np.nan)
        return sp.vstack(blocks, format="csr"), by_gene, by_cell

    @torch.no_grad()
    def _priors(
        self, samples: Samples, measured: pd.Index, code: np.ndarray | None
    ) -> Iterator[tuple[slice, Batch, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Blocks of cells: which, their batch, code, means, and shapes of the gamma prior."""
        known = torch.as_tensor(self.var_names.isin(measured), device=self.device)
        for rows, batch in samples.blocks(self._block_size()):
            z = self.net.encode(batch) if code is None else torch.tensor(code[rows], device=self.device)
            mu = self.net.mean(z, batch.library, batch.covariate)
            if not known.all():  # the library is shared by the genes that were measured
                mu *= known
                mu *= batch.library / mu.sum(1, keepdim=True).clamp_min(1e-30)
            yield rows, batch, z, mu, self.posterior.shape(mu, batch.target)

    def _columns(self, genes: Sequence[str] | str | None) -> np.ndarray:
        return np.arange(len(self.var_names)) if genes is None else _slots.positions(genes, self.var_names)

    def _batch_code(self, batch: str | None) -> int:
        if batch is not None and batch not in (self.batches or ()):
            raise KeyError(f"batch={batch!r} is not known to this model; batches are: {self.batches or 'none'}.")
        return -1 if batch is None else self.batches.index(batch)

    @property
    def n_code(self) -> int:
        """Columns of a code."""
        return self.config.n_models * self.config.n_latent

    def _require_fit(self) -> None:
        if self.heldout_deviance_explained is None:
            raise RuntimeError("this Autoencoder is not fitted, or its last fit did not end; call .fit(adata) first.")

    def _read_new(self, adata: AnnData, layer: str | None) -> Samples:
        self._require_fit()
        counts = self._match_genes(_slots.read_counts(adata, layer), pd.Index(adata.var_names.astype(str)))
        batches = None
        if self.batches is not None:
            values = _slots.read_categories(adata, self.batch_key)
            batches = pd.Categorical(values.astype(str), categories=self.batches)
            if unknown := sorted(set(values.categories) - set(self.batches)):
                _slots.warn(
                    f"batches {unknown[:5]} are not known to the model; their cells are taken as of an average batch."
                )
        return self._samples(counts, batches)

    def _match_genes(self, counts: sp.csr_matrix, names: pd.Index) -> sp.csr_matrix:
        """Bring columns into the model's order by name; missing genes are empty."""
        if names.equals(self.var_names):
            return counts
        if not names.is_unique or not self.var_names.is_unique:
            raise ValueError(
                "gene names are not unique and differ from the model's; call adata.var_names_make_unique() first."
            )
        where = names.get_indexer(self.var_names)
        found = where[self.inputs] >= 0
        message = f"{found.sum()} of the {len(found)} genes that the encoder reads were found"
        if found.mean() < SMALLEST_SHARE_OF_GENES:
            raise ValueError(
                f"{message}; do the names match? The model has {list(self.var_names[self.inputs][:3])} …, the data {list(names[:3])} …."
            )
        if not found.all():
            _slots.warn(f"{message}; the others count as zero.")
        columns = counts.tocsc()[:, where[where >= 0]].tocoo()
        positions = np.flatnonzero(where >= 0)[columns.col]
        return sp.csr_matrix((columns.data, (columns.row, positions)), shape=(counts.shape[0], len(self.var_names)))

    # ---- keeping -----------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the model to one file (safetensors with a JSON header); an existing file is replaced.

        Examples
        --------
        >>> import aeverse as ae, tempfile, os
        >>> adata = ae.datasets.pbmc68k_counts()
        >>> model = ae.models.Autoencoder(n_models=1, n_epochs=1).fit(adata)
        >>> path = os.path.join(tempfile.mkdtemp(), "pbmc.ae")
        >>> model.save(path)
        >>> bool((ae.models.load(path).encode(adata) == model.encode(adata)).all())
        True
        """
        self._require_fit()
        io.save_arrays(path, type(self).__name__, self._header(), self._arrays())

    def record(self) -> dict[str, Any]:
        """What `get.denoised` needs to decode without the model: header and arrays, without the encoder."""
        arrays = {name: a for name, a in self._arrays().items() if ".encoder." not in name}
        return {"header": json.dumps(self._header()), "arrays": arrays}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Autoencoder:
        """Rebuild, from a `record`, a model that can decode but not encode."""
        return cls.restore(json.loads(str(record["header"])), {k: np.asarray(a) for k, a in record["arrays"].items()})

    @classmethod
    def restore(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Autoencoder:
        """Rebuild a model from what `save` or `record` kept."""
        model = cls(**header["config"])
        model.var_names = pd.Index(header["var_names"])
        model.batch_key, model.batches, model.history = header["batch_key"], header["batches"], header["history"]
        model.heldout_deviance_explained = header["heldout_deviance_explained"]
        model.inputs, model.deviance_explained = arrays["inputs"], arrays["deviance_explained"]

        def weights(part: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(part): torch.tensor(a) for k, a in arrays.items() if k.startswith(part)}

        empty = torch.zeros(len(model.inputs))
        input_layer = CountInput(empty, empty + 1, 1.0) if "net.members.0.encoder.first" in arrays else None
        n_genes = len(model.var_names)
        model.net = Ensemble(model._build_member(input_layer, np.zeros(n_genes)) for _ in range(model.config.n_models))
        model.net.load_state_dict(weights("net."))
        model.net.eval()
        model.posterior = GammaPosterior(n_genes)
        model.posterior.load_state_dict(weights("posterior."))
        return model

    def _header(self) -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(self.config),
            "var_names": list(self.var_names),
            "batch_key": self.batch_key,
            "batches": self.batches,
            "history": self.history,
            "heldout_deviance_explained": self.heldout_deviance_explained,
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        parts = {"net": self.net, "posterior": self.posterior}
        arrays = {
            f"{part}.{k}": t.cpu().numpy() for part, module in parts.items() for k, t in module.state_dict().items()
        }
        return {
            **arrays,
            "inputs": self.inputs,
            "deviance_explained": self.deviance_explained,
        }
