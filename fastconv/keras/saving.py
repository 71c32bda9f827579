"""The file of a saved model: safetensors, with the model's configuration in the header.

Nothing in such a file can run code, and any safetensors reader opens it.  A tensor is called ``layer/variable``.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from fastconv import __version__
from fastconv.arrays import FloatArray

SUFFIX = ".safetensors"
# One key: safetensors keeps several in no particular order, and equal models are to give equal files.
_CONFIG_KEY = "fastconv.model"


def write(filepath: str | os.PathLike[str], config: dict[str, Any], tensors: dict[str, FloatArray]) -> None:
    """Write *tensors*, with *config* in the header; the file appears whole or not at all."""
    path = path_of(filepath)
    metadata = {_CONFIG_KEY: json.dumps({"fastconv_version": __version__, **config})}
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    content = _safetensors().numpy.save(arrays, metadata)
    with replacing(path) as stream:
        stream.write(content)


def path_of(filepath: str | os.PathLike[str]) -> Path:
    """*filepath*, which must end as a file of ours does."""
    path = Path(filepath)
    if path.suffix != SUFFIX:
        raise ValueError(f"filepath must end in {SUFFIX}. Received: filepath={str(filepath)!r}")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, which takes the place of *path* once it is complete and disappears where it is not."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(filepath: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """Configuration and tensors of a file that `write` wrote."""
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(os.fspath(filepath), framework="np") as archive:
            metadata = archive.metadata() or {}
            config = json.loads(metadata[_CONFIG_KEY])
            return config, {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, KeyError, RecursionError, ValueError) as error:
        raise ValueError(
            f"filepath must be a model saved by fastconv. Received: filepath={str(filepath)!r}, {error!r}"
        ) from error


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError('saving and loading models needs safetensors: pip install "fastconv[demo]"') from None
    return safetensors
