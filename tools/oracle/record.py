"""Runs the cases in RETURNN and writes down what it computes.

Runs in an environment of its own (`pip install returnn dm-tree tensorflow-cpu`, DISABLE_CUDA=1)::

    python -m tools.oracle.record --to /tmp/oracle_records [--match TEXT]

One case becomes `<name>.npz` (inputs, parameters, outputs, sizes, gradients) and `<name>.json` (what they are). RETURNN
is a measuring instrument: its numbers are recorded, nothing of it is part of this project.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("DISABLE_CUDA", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import returnn.tf.compat as tf_compat
import tensorflow
from returnn.config import Config, global_config_ctx
from returnn.tensor import Dim, Tensor
from returnn.tf.layers.base import LayerBase
from returnn.tf.network import ExternData, TFNetwork
from returnn.util.basic import BehaviorVersion

from .case import Case, Net, Tag, draw_inputs, draw_parameter, with_dims, with_formulas
from .cases import all_cases
from .native_2d_lstm import run_without_gpu
from .records import VERSIONS

tf = tf_compat.v1
Arrays = dict[str, np.ndarray]
KEPT = "keep_state"
"""In the names of RETURNN's variables for what is kept from batch to batch."""


def extern_data_of(case: Case) -> ExternData:
    """Placeholders for the inputs; `same_dim_tags_as` gives axes of an earlier entry."""
    result = ExternData()
    for key, entry in case.extern_data.items():
        options = {"available_for_inference": key == "data" or not entry.get("sparse"), **entry}
        shared = options.pop("same_dim_tags_as", {})
        if shared:
            options["same_dim_tags_as"] = {
                axis: result.data[other].get_dim_tag_from_description(axis) for axis, other in shared.items()
            }
        result.data[key] = Tensor(name=key, auto_create_placeholders=True, **options)
    result.init_batch_info()
    return result


def with_loop_option(network: Net, optimize: bool) -> Net:
    """The network with the option set in every rec layer that has a subnet, however deep."""
    result = {}
    for name, layer in network.items():
        changed = dict(layer)
        for key in ("unit", "subnetwork"):
            if isinstance(changed.get(key), dict):
                changed[key] = with_loop_option(changed[key], optimize) if "class" not in changed[key] else changed[key]
        if changed["class"] == "rec" and isinstance(changed.get("unit"), dict):
            changed["optimize_move_layers_out"] = optimize
        result[name] = changed
    return result


def dim_of(tag: Tag) -> Dim:
    kind = Dim.Types.Feature if tag.feature else Dim.Types.Spatial
    return Dim(kind=kind, description=tag.name, dimension=tag.size)


def axes_of(output: Tensor) -> list[dict[str, Any]]:
    """For every axis of an output: its kind, its name, its size if static, and which axes its lengths vary over."""
    axes = []
    for index, dim in enumerate(output.dims):
        kind = "batch" if dim.is_batch_dim() else "feature" if index == output.feature_dim_axis else "spatial"
        axis: dict[str, Any] = {"kind": kind, "name": dim.description, "static": dim.dimension}
        if kind != "batch" and dim.dimension is None and dim.dyn_size_ext is not None:
            sizes = dim.dyn_size_ext.dims
            axis["varies_over"] = [
                next((i for i, other in enumerate(output.dims) if other == size or _both_batch(other, size)), -1)
                for size in sizes
            ]
        axes.append(axis)
    return axes


def _both_batch(a: Any, b: Any) -> bool:
    return bool(a.is_batch_dim() and b.is_batch_dim())


def fetches_of(layer: LayerBase, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to fetch of a layer, and its description."""
    output = layer.output
    description = {
        "axes": axes_of(output),
        "dtype": output.dtype,
        "sparse": bool(output.sparse),
        "beam": output.beam.beam_size if output.beam else None,
    }
    fetches = {f"layer/{name}": output.placeholder}
    for index, (dim, axis) in enumerate(zip(output.dims, description["axes"], strict=True)):
        if "varies_over" in axis:
            fetches[f"size/{name}/{index}"] = dim.dyn_size_ext.placeholder
    choices = layer.get_search_choices() if output.beam else None
    if choices is not None:
        fetches[f"scores/{name}"] = choices.beam_scores
    return fetches, description


def losses_of(network: TFNetwork) -> dict[str, Any]:
    """Per loss: its sum, error sum and norm factor; and what is minimised."""
    network.maybe_construct_objective()
    fetches: dict[str, Any] = {}
    for name, holder in network.losses_dict.items():
        values = {
            "sum": holder.get_loss_value(),
            "error": holder.get_error_value(),
            "norm": holder.get_norm_factor(),
        }
        fetches |= {f"loss/{name}/{key}": value for key, value in values.items() if value is not None}
    for key, value in (("objective", network.total_objective), ("constraints", network.total_constraints)):
        if value is not None and not isinstance(value, int):
            fetches[key] = value
    return fetches


def gradients_of(network: TFNetwork, variables: dict[str, Any]) -> dict[str, Any]:
    objective = network.total_objective
    if objective is None or isinstance(objective, int) or not variables:
        return {}
    gradients = tf.gradients(objective, list(variables.values()))
    dense = {}
    for name, gradient in zip(variables, gradients, strict=True):
        if gradient is not None:
            dense[f"grad/{name}"] = tf.convert_to_tensor(gradient)
    return dense


def feed_of(data: ExternData, inputs: Arrays, lengths: Any) -> dict[Any, Any]:
    feed = {}
    for key, values in inputs.items():
        entry = data.data[key]
        feed[entry.placeholder] = values
        for size in entry.size_placeholder.values():
            feed[size] = np.array(lengths[key], "int32")
    feed[data.get_batch_info().dim] = len(next(iter(lengths.values())))
    return feed


def run(case: Case, mode: str, optimize: bool, arrays: Arrays) -> dict[str, Any]:
    """Builds and runs the case once. Adds to `arrays` under "<mode>/<on|off>/"; returns the description."""
    prefix = f"{mode}/{'on' if optimize else 'off'}/"
    config = Config({"behavior_version": case.behavior_version})
    BehaviorVersion._behavior_version = None
    BehaviorVersion._min_behavior_version = 0
    BehaviorVersion.set(case.behavior_version)
    with tf.Graph().as_default(), global_config_ctx(config), tf.Session() as session:
        data = extern_data_of(case)
        # A training graph evaluates with its flag switched off at run time; built for False it would drop the targets.
        train_flag = {"train": True, "eval": tf.placeholder_with_default(False, ()), "search": False}[mode]
        network = TFNetwork(
            config=config, extern_data=data, train_flag=train_flag, eval_flag=True, search_flag=mode == "search"
        )
        given = with_formulas(with_dims(case.network, dim_of), lambda formula: formula.function(tensorflow))
        network.construct_from_dict(with_loop_option(given, optimize))
        fetches, layers = {}, {}
        for name in case.layers:
            fetched, layers[name] = fetches_of(network.get_layer(name), name)
            fetches |= fetched
        fetches |= losses_of(network)
        variables = {v.name.removesuffix(":0"): v for v in network.get_params_list()}
        trainable = {v.name.removesuffix(":0"): v for v in network.get_trainable_params()}
        if mode == "train":  # in evaluation RETURNN builds loops that cannot be differentiated
            fetches |= gradients_of(network, trainable)
        network.initialize_params(session)
        for name, variable in variables.items():
            if KEPT in name:
                continue
            arrays[f"param/{name}"] = draw_parameter(name, variable.shape.as_list())
            variable.load(arrays[f"param/{name}"], session)
        feed = feed_of(data, draw_inputs(case), case.lengths)
        kept = network.get_post_control_dependencies()
        for batch in range(case.batches):
            step = {} if network.epoch_step is None else {network.epoch_step: batch}
            results, _ = session.run((fetches, kept if case.batches > 1 else []), feed | step)
        arrays |= {prefix + key: np.asarray(value) for key, value in results.items()}
        return {"layers": layers, "trainable": sorted(trainable), "left_in_loop": left_in_loop(network)}


def left_in_loop(network: TFNetwork) -> dict[str, list[str]]:
    """Per rec layer with a subnet: which of its layers stayed in the loop."""
    result = {}
    for name, layer in network.layers.items():
        cell = getattr(layer, "cell", None)
        if hasattr(cell, "layers_in_loop") and cell.layers_in_loop is not None:
            result[name] = sorted(str(x) for x in cell.layers_in_loop)
    return result


def record(case: Case, folder: Path) -> list[str]:
    """Writes the two files of a case; returns the errors RETURNN reported, one line each."""
    arrays = {f"input/{key}": value for key, value in draw_inputs(case).items()}
    runs: dict[str, Any] = {}
    errors = []
    for mode in case.modes:
        for optimize in case.optimize:
            key = f"{mode}/{'on' if optimize else 'off'}"
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                try:
                    runs[key] = run(case, mode, optimize, arrays)
                except Exception as error:  # noqa: BLE001 -- what RETURNN cannot do is a fact to record
                    lines = str(error).strip().splitlines() or [""]
                    where = traceback.extract_tb(error.__traceback__)[-1].name
                    runs[key] = {"error": f"{type(error).__name__} in {where}: {lines[0]}"}
                    errors.append(f"{key}: {runs[key]['error'][:200]}")
    np.savez_compressed(folder / f"{case.name}.npz", **arrays)
    lengths = {key: list(value) for key, value in case.lengths.items()}
    meta = {"name": case.name, "behavior_version": case.behavior_version, "lengths": lengths, "runs": runs}
    (folder / f"{case.name}.json").write_text(json.dumps(meta, indent=1, default=str))
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description="Records what RETURNN computes.")
    parser.add_argument("--to", type=Path, default=Path("/tmp/oracle_records"))
    parser.add_argument("--match", default="", help="only cases whose name this regular expression finds")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    run_without_gpu()
    made_with = {"RETURNN": version("returnn"), "TensorFlow": version("tensorflow-cpu")}
    (options.to / VERSIONS).write_text(json.dumps(made_with))
    for case in all_cases():
        if re.search(options.match, case.name):
            start = time.monotonic()
            errors = record(case, options.to)
            print(f"{case.name}: {time.monotonic() - start:.1f} s", *errors, sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
