"""The devices that nodes of a graph shall run on."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from returnn_lite.ir import Graph, walk


class DeviceError(ValueError):
    """A device in a config that the machine does not have."""


def require_devices(graph: Graph) -> None:
    """Raises DeviceError if nodes are placed on a device that is not there: TensorFlow would take another one."""
    wanted = {node.origin.device: node.origin for node in walk(graph.nodes) if node.origin.device}
    if not wanted:
        return
    known = {(one.device_type, _index(one.name)): one.name for one in tf.config.list_logical_devices()}
    for device, origin in wanted.items():
        spec = tf.DeviceSpec.from_string(device)
        if (spec.device_type, spec.device_index) not in known:
            raise DeviceError(f"{origin}: there is no device '{device}'; there are {', '.join(known.values())}")


def default_device() -> Literal["cpu", "gpu"]:
    """What nodes without a device of their own run on."""
    return "gpu" if tf.config.get_visible_devices("GPU") else "cpu"


def _index(name: str) -> int | None:
    index: int | None = tf.DeviceSpec.from_string(name).device_index
    return index
