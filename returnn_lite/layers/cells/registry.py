"""All cells by the names that configs use. A module of cells ends with `CELLS`; it is entered here, and imported when a
config first names one of its cells."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from types import MappingProxyType

from returnn_lite.layers.cells.cell import Cell

MODULES: Mapping[str, str] = {
    "attention": "lstmattention attentionlstm lstmwithattention attention caffe2.attention milstmwithattention",
    "bidirectional_grid_lstm": "bidirectionalgridlstm",
    "conv_lstm": "convlstm conv1dlstm conv2dlstm conv3dlstm",
    "coupled_lstm": "cifg cifglstm coupledinputforgetgatelstm",
    "dropout": "dropout rnncelldropout",
    "grid_lstm": "gridlstm",
    "group_lstm": "glstm grouplstm",
    "gru": "gru grublock grublockv2 grublockcellv2 cudnncompatiblegru cudnngru",
    "highway": "rhn",
    "independent_rnn": "indrnn indygru",
    "indy_lstm": "indylstm",
    "intersection_rnn": "intersection intersectionrnn",
    "intra_attention": "intraattention attentioncellwrapper tf.attention",
    "keras_conv_lstm": (
        "convlstm1d convlstm2d convlstm3d keras.convlstm1d keras.convlstm2d keras.convlstm3d keras.v1.convlstm1d "
        "keras.v1.convlstm2d keras.v1.convlstm3d keras.v2.convlstm1d keras.v2.convlstm2d keras.v2.convlstm3d"
    ),
    "keras_gru": "keras.gru keras.v1.gru keras.v2.gru keras.cudnngru",
    "keras_lstm": "keras.lstm keras.v1.lstm keras.v2.lstm keras.cudnnlstm",
    "layer_norm_lstm": "layernormlstm tf.layernormlstm caffe2.layernormlstm layernormbasiclstm",
    "layer_norm_variants": "layernormvariantslstm",
    "lstm": (
        "lstm lstmp nativelstm nativelstm2 lstmblock lstmblockfused cudnnlstm vanillalstm nativelstmlowmem basiclstm "
        "standardlstm tf.lstm tf.lstmblock tf.lstmblockfused cudnncompatiblelstm"
    ),
    "minimal_rnn": "minimalrnn cfn chaosfreenetwork",
    "multiplicative_lstm": "milstm multiplicativelstm layernormmilstm",
    "neural_search": "nas",
    "phased_lstm": "phasedlstm",
    "placement": "device rnncelldevice",
    "projection": "inputprojection embedding outputprojection",
    "residual": "residual highway rnncellresidual",
    "simple_recurrent_unit": "sru",
    "simple_rnn": "rnn basicrnn simplernn keras.simplernn keras.v1.simplernn keras.v2.simplernn",
    "stack": "stack multirnn stackedrnn",
    "time_frequency_lstm": "timefrequencylstm timefreqlstm",
    "update_gate_rnn": "ugrnn",
    "zoneout": "zoneoutlstm",
}
"""The modules of cells, each with the names of its cells."""
IN_LOOP: Mapping[str, str] = dict.fromkeys(("lstmblock", "lstmblockfused", "cudnnlstm"), "standardlstm")
"""What some names mean in `rnn_cell`: TensorFlow's LSTM with its own weights."""
SYSTEMS: Mapping[str, str] = {"tf": "tf", "tensorflow": "tf", "keras": "keras", "caffe2": "caffe2", "torch": "torch"}
"""What a dotted name begins with, or has in it, and the system that it says."""
NAMES: Mapping[str, str] = MappingProxyType(
    {name: module for module, names in MODULES.items() for name in names.split()}
)


def known_name(text: str) -> str | None:
    """The name in `NAMES` that a name in a config means; None if it is none.

    Capitals, underscores and the endings "Cell" and "Wrapper" make no difference, unless the name with them is another
    cell's. A dotted name says the system that it is from, such as `tf.contrib.rnn.NASCell` or `keras.LSTMCell`, which
    may call another cell so: `tf.lstm`. Keras is today's, unless the name says TensorFlow's `v1` or `v2`:
    `tf.compat.v1.keras.layers.GRUCell` is `keras.v1.gru` where there is one.
    """
    *modules, last = text.lower().split(".")
    whole = last.replace("_", "")
    name = whole.removesuffix("wrapper").removesuffix("cell").removesuffix("cells")
    if "keras" in modules:
        systems = [*(f"keras.{one}" for one in modules if one in ("v1", "v2")), "keras"]
    else:
        systems = [SYSTEMS[one] for one in modules if one in SYSTEMS]
    for candidate in (*(f"{system}.{name}" for system in systems), whole, name):
        if candidate in NAMES:
            return candidate
    return None


def cell_class(name: str) -> type[Cell]:
    """The class of a cell under one of its `NAMES`."""
    return _cells_of(NAMES[name])[name]


def all_cells() -> list[type[Cell]]:
    """The classes of all cells."""
    return list(dict.fromkeys(cell_class(name) for name in NAMES))


@functools.cache
def _cells_of(module: str) -> Mapping[str, type[Cell]]:
    """The classes of a module by name. Raises ValueError for a name that is taken twice, or entered nowhere."""
    found: dict[str, type[Cell]] = {}
    for cls in importlib.import_module(f"{__package__}.{module}").CELLS:
        for name in cls.cell_names:
            if name in found or NAMES.get(name) != module:
                raise ValueError(f"the cell '{name}' is entered twice, or not under '{module}'")
            found[name] = cls
    return found
