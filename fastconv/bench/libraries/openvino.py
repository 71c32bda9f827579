"""OpenVINO: one convolution of its own operation set whose weight is a constant, forward only, in float32.

Images come as NCHW or as NHWC; inside, the library chooses a layout by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from openvino import opset13 as opset

from fastconv.bench.libraries import Contender, Library, Prepare
from fastconv.bench.problems import Array, ConvProblem
from fastconv.geometry import Conv2dGeometry

IMAGE_AXES, IMAGE_AXES_BACK, WEIGHT_AXES = (0, 3, 1, 2), (0, 2, 3, 1), (3, 2, 0, 1)


def _model(g: Conv2dGeometry, weight: Array, layout: str) -> Any:
    (top, bottom), (left, right) = g.padding
    place = (list(g.stride), [top, left], [bottom, right], list(g.dilation))
    x = opset.parameter([g.N, g.IC, g.IH, g.IW], np.float32)
    kernel = np.ascontiguousarray(weight.transpose(WEIGHT_AXES))
    if g.G == 1:
        node = opset.convolution(x, opset.constant(kernel), *place)
    else:
        kernel = kernel.reshape(g.G, g.OC // g.G, *kernel.shape[1:])
        node = opset.group_convolution(x, opset.constant(kernel), *place)
    model = openvino.Model([node], [x], "convolution")
    if layout == "NHWC":
        steps = openvino.preprocess.PrePostProcessor(model)
        for end in (steps.input(), steps.output()):
            end.tensor().set_layout(openvino.Layout("NHWC"))
            end.model().set_layout(openvino.Layout("NCHW"))
        model = steps.build()
    return model


def _forward(layout: str) -> Prepare:
    def prepare(problem: ConvProblem, threads: int) -> Contender:
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        model = _model(problem.geometry, problem.weight[0], layout)
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        axes, back = (IMAGE_AXES, IMAGE_AXES_BACK) if layout == "NCHW" else ((0, 1, 2, 3),) * 2
        x = [openvino.Tensor(np.ascontiguousarray(image.transpose(axes))) for image in problem.x]

        def compute(copy: int) -> Any:
            request.set_input_tensor(x[copy])
            request.infer()
            return request.get_output_tensor()

        return Contender(compute, lambda tensor: tensor.data.transpose(back))

    return prepare


LIBRARY = Library(("openvino",), {("conv2d", "forward"): {name: _forward(name) for name in ("NCHW", "NHWC")}})
