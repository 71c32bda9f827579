"""What the tests of the GPU's kernels share: `fastconv.cuda.emulator`, and a skip where nothing can be compiled."""

import pytest

from fastconv.cuda.device import target
from fastconv.cuda.emulator import ARCHITECTURES as ARCHITECTURES, Emulator as Emulator, compiled as compiled


def needs_target() -> None:
    """Skip, with the reason, where kernels cannot be compiled."""
    try:
        target()
    except ImportError as error:
        pytest.skip(f"no kernel can be compiled: {error}", allow_module_level=True)
