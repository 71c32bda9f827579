"""ONNX Runtime: one Conv node whose weight is a constant, forward only.

Two levels of optimisation are tried: with all of them it computes in blocks of channels, and reorders images at both
ends; without the last level it stays in NCHW.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from fastconv.bench.libraries import Contender, Library, Prepare
from fastconv.bench.libraries.onnx_model import IMAGE_AXES, IMAGE_AXES_BACK, convolution
from fastconv.bench.problems import ConvProblem

LEVELS = {
    "blocked": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "NCHW": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}


def _forward(level: Any) -> Prepare:
    def prepare(problem: ConvProblem, threads: int) -> Contender:
        g = problem.geometry
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # its waiting threads would go on spinning, on the cores of whoever is timed next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(convolution(g, problem.weight[0]), options, ["CPUExecutionProvider"])
        out = onnxruntime.OrtValue.ortvalue_from_shape_and_type((g.N, g.OC, g.OH, g.OW), np.float32)
        bindings = []
        for x in problem.x:
            binding = session.io_binding()
            image = np.ascontiguousarray(x.transpose(IMAGE_AXES))
            binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(image))
            binding.bind_ortvalue_output("out", out)
            bindings.append(binding)

        def compute(copy: int) -> Any:
            session.run_with_iobinding(bindings[copy])
            return out

        return Contender(compute, lambda value: value.numpy().transpose(IMAGE_AXES_BACK))

    return prepare


LIBRARY = Library(
    ("onnxruntime", "onnx"), {("conv2d", "forward"): {name: _forward(level) for name, level in LEVELS.items()}}
)
