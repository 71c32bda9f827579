"""Threads: parallel kernels really run in parallel, and nothing aborts, whoever calls and however."""

import importlib.util
import os
import threading

import numba
import numpy as np
import pytest
from numba import prange
from numba.np.ufunc.parallel import get_thread_id

from fastconv import _jit, threads


def recorder(name, calls, inside=None):
    """A driver that notes that it was called, and with what."""

    def driver(*arguments):
        calls.append((name, arguments))
        if inside is not None:
            inside()

    return driver


def test_several_workers_take_the_parallel_driver_and_one_the_serial():
    calls = []
    drivers = recorder("serial", calls), recorder("parallel", calls)
    threads.run(*drivers, 2, "x", "out")
    threads.run(*drivers, 1, "x", "out")
    assert calls == [("parallel", (2, "x", "out")), ("serial", ("x", "out"))]


def test_inside_a_parallel_region_the_serial_driver_runs():
    calls = []
    serial = recorder("serial", calls)

    def from_another_thread():
        other = threading.Thread(target=threads.run, args=(serial, recorder("second", calls), 2))
        other.start()
        other.join()

    threads.run(serial, recorder("parallel", calls, from_another_thread), 2)
    assert [name for name, _ in calls] == ["parallel", "serial"]
    # and the region is free again, after an error too
    with pytest.raises(ZeroDivisionError):
        threads.run(serial, lambda workers: 1 / 0, 2)
    threads.run(serial, recorder("parallel", calls), 2)
    assert [name for name, _ in calls] == ["parallel", "serial", "parallel"]


def test_small_problems_get_one_worker_and_large_ones_as_many_as_numba_has():
    assert threads.worker_count(threads.PARALLEL_THRESHOLD - 1) == 1
    assert threads.worker_count(threads.PARALLEL_THRESHOLD) == numba.get_num_threads()
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert threads.worker_count(1e12) == 1
    finally:
        numba.set_num_threads(before)


@_jit.parallel_kernel
def record_threads(workers, seen):
    """Each worker writes down which thread it ran on."""
    for worker in prange(workers):
        seen[worker] = get_thread_id()


def test_a_parallel_kernel_runs_on_several_threads():
    workers = numba.get_num_threads()
    if workers == 1:
        pytest.skip("Numba has one thread here: NUMBA_NUM_THREADS, or a machine with one core")
    seen = np.full(workers, -1)
    record_threads(workers, seen)
    assert sorted(seen) == list(range(workers))


# Forward, both gradients and a pooling, each large enough for the parallel drivers.
WORK = """
import numba, numpy as np
from fastconv.functional.conv import conv2d, conv2d_backward
from fastconv.functional.pool import max_pool2d
rng = np.random.default_rng(0)
x, weight = rng.normal(size=(4, 29, 31, 16)).astype(np.float32), rng.normal(size=(3, 3, 16, 24)).astype(np.float32)
grad_out = rng.normal(size=(4, 27, 29, 24)).astype(np.float32)
def work():
    results = [conv2d(x, weight), *conv2d_backward(grad_out, x, weight), max_pool2d(x, 3, stride=1)]
    return [result.tobytes() for result in results]
"""


def test_a_cached_parallel_kernel_is_still_parallel_in_the_next_process(run_python):
    """Numba's own cache can hand the serial code of one body to its parallel twin (numba/numba#6845)."""
    source = WORK + "work(); print(numba.threading_layer())"
    first, second = (run_python(source, NUMBA_NUM_THREADS="2") for _ in range(2))
    # threading_layer() raises as long as no parallel region has run
    assert first == second != ""


MANY_CALLERS = """
import threading
expected = work()
assert numba.get_num_threads() == 2
failures = []
def call():
    for _ in range(5):
        if work() != expected:
            failures.append(threading.current_thread().name)
callers = [threading.Thread(target=call) for _ in range(8)]
for caller in callers: caller.start()
for caller in callers: caller.join()
print(numba.threading_layer(), failures)
"""


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_eight_python_threads_at_once(run_python, layer):
    """Numba's workqueue aborts the process when two threads are inside parallel regions at the same time."""
    if importlib.util.find_spec(f"numba.np.ufunc.{layer if layer == 'workqueue' else 'omppool'}") is None:
        pytest.skip(f"this Numba was built without the threading layer {layer}")
    try:
        found = run_python(WORK + MANY_CALLERS, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER=layer)
    except AssertionError as error:
        if "No threading layer could be loaded" in str(error):
            pytest.skip(f"the library behind the threading layer {layer} is not installed")
        raise
    assert found == f"{layer} []"


FORK = """
import os, sys
expected = work()
child = os.fork()
if child == 0:
    os._exit(0 if work() == expected else 3)
_, status = os.waitpid(child, 0)
assert work() == expected
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.parametrize("layer", ["workqueue", "default"])
def test_a_child_forked_after_parallel_work_computes(run_python, layer):
    """GNU OpenMP, a usual default layer, ends a forked child that enters a parallel region."""
    assert run_python(WORK + FORK, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER=layer) == "0"


IMPORT = """
import sys, threading, warnings
import numba, numpy
def state():
    names = [name for name in dir(numba.config) if name.isupper()]
    return {name: getattr(numba.config, name) for name in names}, numpy.geterr(), list(warnings.filters)
before = state()
import fastconv, fastconv.keras
import fastconv.functional.conv, fastconv.functional.pool, fastconv.dispatch, fastconv.plots
assert state() == before
assert threading.active_count() == 1
print(sorted({"torch", "matplotlib", "PIL", "safetensors", "numba.cuda"} & set(sys.modules)))
"""


def test_import_changes_no_setting_and_loads_nothing_heavy(run_python):
    assert run_python(IMPORT) == "[]"
