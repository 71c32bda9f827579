"""One kernel cache for the whole run and its workers, and Python processes for what a running one cannot show."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Numba reads the directory when it is imported, so it is set before any test module is.  Each run has its own cache,
# which the processes that tests start share: kernels are compiled once, and a cache filled earlier in another mode (by
# other options, for another CPU) cannot hide what this run is meant to show.
_OWN_CACHE = None if "NUMBA_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="fastconv-kernels-")
if _OWN_CACHE is not None:
    os.environ["NUMBA_CACHE_DIR"] = _OWN_CACHE

# A profile of this machine would change which algorithm "auto" takes.
os.environ["FASTCONV_PROFILE"] = os.devnull + ".json"

# Where the package under test lies: in the checkout, or installed.  Looked up without importing it.
_SPEC = find_spec("fastconv")
assert _SPEC is not None
assert _SPEC.origin is not None
PACKAGE = Path(_SPEC.origin).parent

# OpenMP's threads would turn for a while after a parallel region; the core is of more use to another worker.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

#: Compiling takes most of the time, and what several workers need at the same time each of them compiles.
MOST_WORKERS = 4


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes share a directory of tests; 0, none but this one, for files: they end before others start."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    whole = any(Path(argument).is_dir() for argument in config.args)
    return min(cores, MOST_WORKERS) if whole and cores > 1 else 0


def pytest_sessionstart(session: pytest.Session) -> None:
    """Workers of a run of all tests begin with the kernels, each with a part: what several need, each would compile."""
    worker = getattr(session.config, "workerinput", None)
    everything = any(Path(__file__).is_relative_to(Path(argument).resolve()) for argument in session.config.args)
    if worker is not None and everything and not session.config.option.keyword:
        from fastconv import warmup

        number = int(worker["workerid"].removeprefix("gw"))
        warmup.compile_for_cpu(("float32", "float64"), part=number, parts=worker["workercount"])


def pytest_unconfigure() -> None:
    if _OWN_CACHE is not None:
        shutil.rmtree(_OWN_CACHE, ignore_errors=True)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as Python answers it; a job that a shell has put into the background is deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_window() -> Iterator[None]:
    """What is drawn with pyplot, as tutorials do, opens no window, and nothing of it is left."""
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """A function that runs Python source in a new process and returns what it printed.

    Settings are environment variables; None removes one.  The process must end with 0.
    """

    def run(source: str, package: Path = PACKAGE, **settings: str | None) -> str:
        script = tmp_path / "script.py"
        # An unchanged script keeps its time: Numba's cache takes a newer one for an edited one.
        if not script.exists() or script.read_text() != source:
            script.write_text(source)
        # Bytecode is not written: Python would take an edit within the same second for no edit.
        environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", **settings}
        done = subprocess.run(
            [sys.executable, str(script)],
            env={name: value for name, value in environment.items() if value is not None},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    return run
