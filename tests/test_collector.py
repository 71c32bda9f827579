"""The garbage collector while fastconv is imported, and after."""

import gc

import pytest

from fastconv._collector import collector_paused


@pytest.fixture(params=[True, False], ids=["collecting", "not collecting"])
def collecting(request):
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_a_pause_ends_as_it_began(collecting):
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled() == collecting


def test_a_pause_ends_with_an_error(collecting):
    with pytest.raises(ImportError), collector_paused():
        raise ImportError
    assert gc.isenabled() == collecting


def test_an_import_looks_for_no_garbage(run_python):
    source = """
import gc, numba
before = [generation["collections"] for generation in gc.get_stats()]
import fastconv
after = [generation["collections"] for generation in gc.get_stats()]
print(gc.isenabled(), sum(after) - sum(before))
"""
    enabled, collections = run_python(source).split()
    assert enabled == "True"
    assert int(collections) <= 1  # of the youngest, as soon as it may
