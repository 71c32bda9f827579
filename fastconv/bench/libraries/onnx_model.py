"""A convolution as an ONNX model: NCHW, the weight a constant of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastconv.bench.problems import Array
from fastconv.geometry import Conv2dGeometry

IMAGE_AXES, IMAGE_AXES_BACK, WEIGHT_AXES = (0, 3, 1, 2), (0, 2, 3, 1), (3, 2, 0, 1)
# Old enough for every version that runs today; Conv has not changed since.
OPSET, IR_VERSION = 17, 8


def convolution(g: Conv2dGeometry, weight: Array) -> Any:
    """The serialised model: input ``x`` (N, IC, IH, IW), output ``out``."""
    (top, bottom), (left, right) = g.padding
    node = helper.make_node(
        "Conv",
        ["x", "weight"],
        ["out"],
        strides=g.stride,
        pads=(top, left, bottom, right),
        dilations=g.dilation,
        group=g.G,
    )
    constant = numpy_helper.from_array(np.ascontiguousarray(weight.transpose(WEIGHT_AXES)), "weight")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (g.N, g.IC, g.IH, g.IW))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, (g.N, g.OC, g.OH, g.OW))
    graph = helper.make_graph([node], "convolution", [x], [out], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()
