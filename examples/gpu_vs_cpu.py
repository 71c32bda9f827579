"""From which batch size on does a GPU pay?  ``python examples/gpu_vs_cpu.py [BATCH ...]``

One convolution layer on the CPU and on the GPU, with the copies there and back.  Without a GPU it says what is missing,
predicts the times of an H100 from its data sheet, and runs the GPU's kernels all the same, small, in an interpreter.
The exit status is 1 where their values are not the CPU's, bit by bit.
"""

import sys
import time

from rich.console import Console

import fastconv
from fastconv import cuda
from fastconv.bench import gpu, problems
from fastconv.cuda import roofline

batches = [int(text) for text in sys.argv[1:]] or [1, 8, 32]
LAYER = "28x28x32,3x3x64,padding=same"
H100 = roofline.gpu("H100")

print = Console(markup=False, highlight=False, soft_wrap=True).print

reason = cuda.why_not()
print(f"No GPU: {reason}. Its times are PREDICTED, for {H100}." if reason else f"GPU: {gpu.name_of_device()}")


def cpu_seconds(layer):
    """The fastest of a few calls; the first one compiles."""
    problem = layer.problem()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        fastconv.conv2d(problem.x[0], problem.weight[0], padding="same")
        seconds.append(time.perf_counter() - start)
    return min(seconds)


agreements = []
for batch in batches:
    layer = problems.layer_of_text(LAYER, batch)
    cpu = cpu_seconds(layer)
    if reason:
        times = gpu.predict(layer, H100)
    else:
        measured = gpu.measure(layer, samples=10)
        times = measured.times
        agreements.append(measured.agreement)
    kernel, copies = min(times.kernel), min(times.upload) + min(times.download)
    print(
        f"batch {batch:4}: CPU {1e3 * cpu:8.3f} ms, GPU {1e3 * kernel:8.4f} ms + copies {1e3 * copies:.4f} ms: "
        f"{'about ' * bool(reason)}{cpu / (kernel + copies):.1f} times as fast"
    )

if reason:
    print(fastconv.explain((batches[-1], 28, 28, 32), (3, 3, 32, 64), padding="same", device="cuda:H100"))
    try:
        agreements.append(gpu.emulate(layer))
    except ImportError as error:
        print(f"The kernels cannot be compiled, so their values are not compared: {error}")
for agreement in agreements:
    print(f"{'same bits as the CPU' if agreement.same_bits else f'error {agreement.error:.0e}'}: {agreement.problem}")
sys.exit(0 if all(agreement.same_bits for agreement in agreements) else "the GPU's values are not the CPU's")
