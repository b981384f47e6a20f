"""From an entry of the registry to a model with weights."""

import types
import warnings
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from zoo import devices
from zoo.cache import weights_file
from zoo.checkpoints import read_network
from zoo.domain import Domain
from zoo.errors import reason
from zoo.registry import Entry
from zoo.translator import Translator


def build(entry: Entry, source: Domain | None = None, target: Domain | None = None) -> Translator:
    """The entry's model, with its weights where it has any.

    Args:
        entry: from `registry.lookup`.
        source, target: domains of a fresh model; a stored one brings its own.

    Raises:
        OSError: for weights that are not there and cannot be downloaded.
        ValueError: for weights whose sha256 is not the registered one.
    """
    for side, domain in (("source", source), ("target", target)):
        if not isinstance(domain, Domain | None):
            raise ValueError(f"{side}: expected a zoo.Domain. Received: {domain!r}")
    recipe = entry.recipe
    devices.prepare()
    precision = devices.resolve_precision(recipe.precision)
    if entry.source is not None and entry.target is not None:
        source, target = Domain.from_dict(entry.source), Domain.from_dict(entry.target)
    source = source or Domain(channels=recipe.slices)
    target = target or Domain()
    keras.utils.set_random_seed(recipe.seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(devices.POLICIES[precision])
    try:
        model = entry.model_class(recipe, source, target)
    finally:
        keras.config.set_dtype_policy(before)
    if entry.weights is not None:
        load_network(model, entry.weights, entry.sha256)
    if entry.trained_on is not None:
        # Keras and TensorFlow would track a plain dictionary as a part of the model.
        model.trained_on = types.MappingProxyType(entry.trained_on)
    return model


def load_network(model: Translator, weights: Path | str, sha256: str) -> None:
    """Load a served network's weights from a file or, through the cache, from a URL.

    Args:
        model: built, with variables of any values.
        weights: a `.weights.h5` file, the https URL of one, or the `.index` of a checkpoint.
        sha256: of the file; "" where nothing is known, which a URL may not be.

    Raises:
        FileNotFoundError, OSError: as `weights_file`.
        ValueError: as that, or where it does not fit the network.
    """
    path = weights_file(weights, sha256)
    if path.suffix == ".index":
        read_network(model.network, path)
        return
    variables = model.network.variables
    for variable in variables:  # Keras only warns of a variable that the file does not hold
        variable.assign(np.full(variable.shape, np.nan))
    largest = max(int(np.prod(variable.shape)) for variable in variables)
    try:
        _check_hdf5(path, largest)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is missing is said below
            model.network.load_weights(path)
    except Exception as error:  # a damaged file makes HDF5 raise nearly anything
        received = " ".join(str(error).split())[:300] or reason(error)
        raise ValueError(
            f"{path}: expected weights of {model.name}. Received: {received}"
        ) from error
    empty = [v.path for v in variables if not np.isfinite(v.numpy()).all()]
    if empty:
        raise ValueError(f"{path}: expected weights of {model.name}. Received: no {empty[0]}")


def _check_hdf5(path: Path, largest: int) -> None:
    """A ValueError where weights lie outside the file, or one is larger than `largest` numbers."""

    def bad_link(name: str, link: Any) -> str | None:
        return None if isinstance(link, h5py.HardLink) else f"a link at {name}"

    def bad_item(name: str, item: Any) -> str | None:
        if not isinstance(item, h5py.Dataset):
            return None
        if item.is_virtual or item.external:
            return f"data of another file at {name}"
        if item.dtype.kind not in "biufV" or (item.size or 0) > largest:
            return f"{item.dtype} of shape {item.shape} at {name}"
        return None

    with h5py.File(path, "r") as file:
        bad = file.visititems_links(bad_link) or file.visititems(bad_item)
    if bad:
        raise ValueError(bad)
