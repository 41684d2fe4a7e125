"""All layer classes by the names that configs use. A module of layers ends with `LAYERS`; it is entered here.

A module is imported when a config first names one of its classes: `rnn.py check` shall not wait for the rest.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from returnn_lite.layers.base import Layer

MODULES: Mapping[str, str] = {
    "affine": "linear hidden forward softmax layer_norm norm batch_norm",
    "attention": "self_attention",
    "axes": "split_dims merge_dims combine_dims expand_dims squeeze reinterpret_data swap_axes",
    "choice": "choice",
    "constants": "constant variable",
    "contraction": "dot generic_attention dot_attention",
    "convolution": "conv transposed_conv pool",
    "dropout": "dropout",
    "edit_distances": "edit_distance_table optimal_completions",
    "evaluate": "eval",
    "gradients": "scaled_grad",
    "histories": "cum_concat",
    "indexing": "slice slice_nd gather gather_nd scatter_nd split boolean_mask search_sorted",
    "joining": "concat tile repeat stack",
    "language_model": "kenlm",
    "last_states": "get_last_hidden_state",
    "masked": "masked_computation unmask",
    "planes": "twod_lstm",
    "pointwise": "activation copy identity combine compare switch cast gating print",
    "positional_encodings": "relative_positional_encoding positional_encoding",
    "positions": "range_in_axis range range_from_length seq_len_mask",
    "random_numbers": "random rand_int random_state_init",
    "recurrent": "rec rnn_cell",
    "reduction": "reduce reduce_out softmax_over_spatial cumsum length accumulate_mean top_k",
    "search": "decide decide_keep_beam choice_get_beam_scores choice_get_src_beams split_batch_beam",
    "sequence": "prefix_in_time postfix_in_time",
    "structure": "subnetwork rec_unstack rec_last_output :i rec_step_info",
    "transpose": "transpose",
    "windows": "pad window shift_axis",
}
"""The modules of layers, each with the names of its classes."""


def layers_by_name(classes: Iterable[type[Layer]]) -> dict[str, type[Layer]]:
    """The classes under each of their names; no name may be taken twice."""
    found: dict[str, type[Layer]] = {}
    for cls in classes:
        for name in cls.class_names:
            if name in found:
                raise ValueError(f"layer class '{name}' is both {found[name].__name__} and {cls.__name__}")
            found[name] = cls
    return found


@functools.cache
def layers_of(module: str) -> Mapping[str, type[Layer]]:
    """The classes of a module by name."""
    return layers_by_name(importlib.import_module(f"{__package__}.{module}").LAYERS)


class _Layers(Mapping[str, type[Layer]]):
    """The classes by name; a class is imported when it is looked up, not when names are."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = MappingProxyType({name: module for module, names in modules.items() for name in names.split()})

    def __getitem__(self, name: str) -> type[Layer]:
        return layers_of(self._modules[name])[name]

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


LAYERS: Mapping[str, type[Layer]] = _Layers(MODULES)
