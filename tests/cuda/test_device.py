"""The door to the CUDA target: it is opened late, and says what is missing."""

import sys
from collections.abc import Callable
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from emulator import needs_target

from fastconv.cuda import available, device, libraries, why_not


def test_import_leaves_the_target_alone(run_python: Callable[..., str]) -> None:
    source = """
import sys
import fastconv, fastconv.cuda, fastconv.cuda.conv_direct
print([name for name in sys.modules if name.startswith(("numba.cuda", "numba_cuda", "cuda"))])
"""
    assert run_python(source) == "[]"


def test_why_not_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba.cuda", None)
    reason = why_not()
    assert not available()
    assert reason is not None
    assert "pip install 'fastconv[cuda]'" in reason
    with pytest.raises(RuntimeError, match="pip install"):
        libraries.current()


def test_why_not_with_the_old_target_only(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(implementation="Built-in", cgutils=None, extending=None, types=None)
    monkeypatch.setattr(numba, "cuda", old, raising=False)
    for name in ("", ".cgutils", ".extending", ".types"):
        monkeypatch.setitem(sys.modules, f"numba.cuda{name}", old)
    assert "the old one inside numba" in (why_not() or "")


def test_why_not_where_the_target_and_numpy_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 2.5 has no row_stack, say, which shows when the first kernel is compiled unless it is looked for."""
    needs_target()
    monkeypatch.delattr(numba.cuda, "cudaimpl", raising=False)
    monkeypatch.setitem(sys.modules, "numba.cuda.cudaimpl", None)
    assert "cannot be imported (import of numba.cuda.cudaimpl halted" in (why_not() or "")


def test_why_not_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_target()
    monkeypatch.setattr(device.target(), "is_available", lambda: False)
    assert "driver 580 or newer" in (why_not() or "")
    assert not available()


def test_host_arrays_are_refused() -> None:
    with pytest.raises(TypeError, match=r"on the device. Received: a NumPy array of shape \(2, 3\)"):
        device.refuse_host_arrays((1, np.empty((2, 3))))


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match=r"float32 here. Received: float64, shape \(2,\)"):
        device.flat(np.empty(2))
