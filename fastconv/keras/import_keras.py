"""Weights from files that Keras wrote: ``.weights.h5``, and ``.keras``, a zip archive with one of them in it.

Keras keeps the arrays of each layer as ``layers/<class>/vars/<n>``: the layer's class in snake case, with ``_1``,
``_2`` and so on behind it for the further layers of that class in the order of the model.  Only data sets of the
expected names are read, as arrays, once their shapes are known to fit: nothing is unpickled or executed, and nothing
is read that lies outside the file.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastconv.arrays import FloatArray
from fastconv.keras.layers.base import Layer, snake_case

WEIGHTS_SUFFIX, ARCHIVE_SUFFIX = ".weights.h5", ".keras"
_WEIGHTS_IN_ARCHIVE = "model.weights.h5"
_LAYERS, _VARIABLES = "layers", "vars"


class UnfitFileError(ValueError):
    """A file that could be read, but does not hold what is looked for."""


def is_of_keras(filepath: str | os.PathLike[str]) -> bool:
    """Whether a file's name is that of one of Keras's."""
    return os.fspath(filepath).endswith((WEIGHTS_SUFFIX, ARCHIVE_SUFFIX))


def read_weights(filepath: str | os.PathLike[str], layers: Sequence[Layer]) -> list[FloatArray]:
    """The arrays for all variables of *layers*, which are built, from a file of Keras.

    Raises
    ------
    ValueError
        Where the file is none of Keras's, or does not hold the weights of exactly these layers in their shapes.
    ImportError
        Where h5py is not installed.
    """
    path = Path(filepath)
    groups = _groups(layers)
    weights: list[FloatArray] = []
    with _opened(path) as file:
        stored = _member(file, _LAYERS, "Group", path)
        for name in stored:
            if name not in groups and _variables(stored, name, path):
                raise UnfitFileError(
                    f"filepath must hold weights of the model's layers only, {list(groups)}. "
                    f"Received: {path}, with {name}"
                )
        for name, layer in groups.items():
            variables = _variables(stored, name, path)
            expected = [variable.shape for variable in layer.variables]
            found = [data.shape for data in variables]
            if found != expected:
                raise UnfitFileError(
                    f"layer {layer.name} has weights of shapes {expected}. Received: {path}, {name} of shapes {found}"
                )
            weights += [np.asarray(data[()]) for data in variables]
    return weights


def _groups(layers: Sequence[Layer]) -> dict[str, Layer]:
    """The layers by the names of their groups in a file."""
    met: Counter[str] = Counter()
    groups = {}
    for layer in layers:
        name = snake_case(type(layer).__name__)
        groups[f"{name}_{met[name]}" if met[name] else name] = layer
        met[name] += 1
    return groups


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The HDF5 file at *path*, or in the archive there; whatever is wrong with it while it is open is a ValueError."""
    h5py = _h5py()
    with path.open("rb") as stream, ExitStack() as stack:
        try:
            content: Any = stream
            if path.name.endswith(ARCHIVE_SUFFIX):
                archive = stack.enter_context(zipfile.ZipFile(stream))
                content = stack.enter_context(archive.open(_WEIGHTS_IN_ARCHIVE))
            yield stack.enter_context(h5py.File(content, "r"))
        except UnfitFileError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"filepath must be a whole file written by Keras. Received: {path}, {error!r}") from error


def _variables(layers: Any, name: str, path: Path) -> list[Any]:
    """The data sets of the layer *name*, in their order; none where the file has nothing of it."""
    if name not in layers:
        return []
    group = _member(layers, name, "Group", path)
    if _VARIABLES not in group:
        return []
    variables = _member(group, _VARIABLES, "Group", path)
    return [_data(variables, str(number), path) for number in range(len(variables))]


def _data(group: Any, name: str, path: Path) -> Any:
    data = _member(group, name, "Dataset", path)
    if data.external or data.is_virtual:  # HDF5 would fetch it from other files
        raise UnfitFileError(f"{data.name} must be a data set with its numbers in the file. Received: {path}")
    if data.dtype.kind != "f":
        raise UnfitFileError(f"{data.name} must hold floating-point numbers. Received: {path}, of {data.dtype}")
    return data


def _member(group: Any, name: str, kind: str, path: Path) -> Any:
    """What is called *name* in a group of the file: not a link, which could lead to another file."""
    h5py = _h5py()
    if isinstance(group.get(name, getlink=True), h5py.HardLink):
        member = group[name]
        if isinstance(member, getattr(h5py, kind)):
            return member
    where = f"{group.name.rstrip('/')}/{name}"
    raise UnfitFileError(
        f"filepath must be a file written by Keras 3. Received: {path}, without a {kind} {where} in it"
    )


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise ImportError('files of Keras are read by h5py: pip install "fastconv[keras]"') from None
    module: ModuleType = h5py
    return module
