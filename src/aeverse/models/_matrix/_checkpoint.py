"""Checkpoints: files from which the training of one matrix goes on as if it had not been interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from aeverse import _slots, io
from aeverse.models._matrix._network import Matrix, Network
from aeverse.models._shared._arrays import load_arrays
from aeverse.train import Samples

KIND = "Checkpoint"


class TrainingCheckpoint:
    """A file that holds where the training of a network stands; see `aeverse.train.Checkpoint`.

    Parameters
    ----------
    path
        The file. Where it exists, the network, the generator and `state` are set to what it holds.
    network
        As training starts from it.
    generator
        Gives what corrupts the batches, on the device where that happens.
    samples, heldout
        What training sees, in memory, and what it does not: a file of other data is refused.

    Raises
    ------
    ValueError
        The file is no checkpoint, is damaged, or belongs to other data or settings.
    """

    def __init__(
        self, path: str | Path, network: Network, generator: torch.Generator, samples: Samples, heldout: Matrix
    ):
        self.path, self.network, self.generator = path, network, generator
        self.run = _fingerprint(network, samples, heldout)
        self.state: Mapping[str, Any] | None = None
        if Path(path).exists():
            self.state = self._read()

    @property
    def n_steps(self) -> int:
        """Steps that were done when the file was written."""
        return 0 if self.state is None else int(self.state["step"])

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file."""
        arrays_outside = {name: arrays for name, arrays in self.network.tree().items() if name != "ensemble"}
        tree = {
            "run": self.run,
            "training": state,
            "network": arrays_outside,
            "random": self.generator.get_state().numpy(),
        }
        io.save_arrays(self.path, KIND, *io.pack(tree))

    def _read(self) -> Mapping[str, Any]:
        try:
            header, arrays, _ = io.load_arrays(self.path, KIND)
        except ValueError as error:
            raise ValueError(f"checkpoint={str(self.path)!r} cannot be resumed: {error}") from error
        tree = io.unpack(header, arrays)
        if tree["run"] != self.run:
            raise ValueError(
                f"checkpoint={str(self.path)!r} belongs to the training of other data or with other settings, or to "
                "another release: name another file, or delete this one to start anew."
            )
        self.generator.set_state(torch.from_numpy(tree["random"]))
        for name, arrays in tree["network"].items():
            load_arrays(getattr(self.network, name), arrays)
        return tree["training"]


def _fingerprint(network: Network, samples: Samples, heldout: Matrix) -> str:
    """Hash of all that training depends on: settings, the weights that it starts from, and the data."""
    values = {
        "seen": samples.data,
        "heldout": heldout,
        "covariate": samples.covariate,
        "graph_target": samples.graph_target,
    }
    arrays = dict(io.pack(network.tree())[1])
    for name, matrix in values.items():
        if sp.issparse(matrix):
            arrays |= {f"{name}.{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        elif matrix is not None:
            arrays[name] = np.asarray(matrix)
    return _slots.checksum(json.dumps([network.settings.tree(), _slots.versions()["aeverse"]], sort_keys=True), arrays)
