"""Writes ONNX models node by node, without torch's exporter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from torch import Tensor, nn

OPSET = 17


@dataclass
class OnnxWriter:
    """Builds an ONNX model; every method that adds something returns the name of its value."""

    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def constant(self, value: Any, name: str = "", dtype: type = np.float32) -> str:
        """Store an array as an initializer."""
        name = name or f"const_{len(self.weights)}"
        array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype), name))
        return name

    def add(self, op: str, *inputs: str, name: str = "", **attrs: Any) -> str:
        """Add a node with one output."""
        name = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attrs))
        return name

    def linear(self, x: str, layer: nn.Linear, name: str) -> str:
        """x W^T + b, as Gemm; x is (1, in)."""
        weights = [self.constant(layer.weight, f"{name}.weight"), self.constant(layer.bias, f"{name}.bias")]
        return self.add("Gemm", x, *weights, name=name, transB=1)

    def conv(self, x: str, layer: nn.Conv2d, name: str) -> str:
        """A convolution of x (1, C, H, W)."""
        weights = [self.constant(layer.weight, f"{name}.weight"), self.constant(layer.bias, f"{name}.bias")]
        attrs = {"kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": [*layer.padding, *layer.padding]}
        return self.add("Conv", x, *weights, name=name, **attrs)

    def sequential(self, x: str, layers: nn.Sequential, prefix: str = "") -> str:
        """The layers of a torch network one after the other."""
        for index, layer in enumerate(layers):
            name = f"{prefix}{type(layer).__name__.lower()}_{index}"
            match layer:
                case nn.Linear():
                    x = self.linear(x, layer, name)
                case nn.Conv2d():
                    x = self.conv(x, layer, name)
                case nn.MaxPool2d(kernel_size=size):
                    x = self.add("MaxPool", x, name=name, kernel_shape=[size, size], strides=[size, size])
                case nn.ReLU() | nn.Tanh() | nn.Sigmoid():
                    x = self.add({"ReLU": "Relu"}.get(type(layer).__name__, type(layer).__name__), x, name=name)
                case nn.Flatten():
                    x = self.add("Flatten", x, name=name)
                case _:
                    raise TypeError(f"no ONNX writer for {layer}")
        return x

    def model(self, name: str, input_shape: Sequence[int], output: str, output_shape: Sequence[int]) -> ModelProto:
        """The checked model: one float32 input "x", one float32 output."""
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(input_shape))]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, list(output_shape))]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        model = helper.make_model(graph, producer_name="verif cases", opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 8
        checker.check_model(model, full_check=True)
        return model
