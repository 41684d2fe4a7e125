"""What to write here for the calls and layers of TensorFlow 1, Keras, Caffe2 and PyTorch that ran recurrent cells: the
documentation has it as a table, and a config that names one as the class of a layer is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from returnn_lite.layers.cells.registry import known_name


@dataclass(frozen=True)
class OldName:
    """A call or layer of another system, and the same here, in the markup of the documentation. `differs` says what is
    not the same; `classes` are its names where a config could have them as the class of a layer, in lower case,
    without underscores and modules."""

    call: str
    here: str
    differs: str = ""
    classes: tuple[str, ...] = ()


OLD_NAMES: Sequence[OldName] = (
    OldName(
        "``tf.nn.dynamic_rnn(cell, x, lengths)``",
        "``{class: rec, unit: CELL, from: x}``",
        "Frames beyond a sequence's length do not exist here; there outputs are 0 and states held.",
        ("dynamicrnn",),
    ),
    OldName(
        "``tf.nn.static_rnn``, ``unroll=True``",
        "``{class: rec, unit: CELL, unroll: true, from: x}``",
        "No loop is left where the number of steps is fixed (the dim has a size); else eight steps are a round of the "
        "loop. The numbers are the same.",
        ("staticrnn",),
    ),
    OldName("``time_major=True``", "nothing: dims have no order here"),
    OldName(
        "``tf.nn.bidirectional_dynamic_rnn``, ``keras.layers.Bidirectional``",
        "``{class: rec, direction: both, merge: concat, unit: CELL, from: x}``",
        "Backwards means from each sequence's last frame; Keras reverses the padding, too.",
        ("bidirectional", "bidirectionaldynamicrnn", "staticbidirectionalrnn"),
    ),
    OldName(
        "``stack_bidirectional_dynamic_rnn``",
        "``{class: rec, direction: both, unit: [CELL, CELL], from: x}``",
        classes=("stackbidirectionaldynamicrnn", "stackbidirectionalrnn"),
    ),
    OldName(
        "``FusedRNNCellAdaptor``, ``LSTMBlockFusedCell``",
        "``{class: rec, unit: CELL, from: x}``",
        "Whole sequences are one recurrence where that is possible, for all cells.",
        ("fusedrnncelladaptor",),
    ),
    OldName(
        "``TimeReversedFusedRNN``, ``go_backwards=True``",
        "``{class: rec, unit: CELL, direction: -1, from: x}``",
        "Outputs have the order of the frames; Keras leaves them reversed, and reverses the padding, too.",
        ("timereversedfusedrnn",),
    ),
    OldName(
        "``MultiRNNCell``, ``StackedRNNCells``",
        "``{class: rec, unit: [CELL, CELL], from: x}``",
        classes=("multirnncell", "stackedrnncells"),
    ),
    OldName(
        "``DropoutWrapper``",
        "``{class: dropout, cell: CELL, input_dropout: .., output_dropout: .., state_dropout: ..}``",
        "Only training drops. With ``variational`` each sequence has a mask of its own; TensorFlow's is one for the "
        "whole batch: ``shared_by_batch: true``. Which states are dropped is said by their keys, ``dropped_states``, "
        "in place of a filter function; the default is the same.",
    ),
    OldName(
        "``ResidualWrapper``, ``HighwayWrapper``",
        "``{class: residual, cell: CELL}``, ``{class: highway, cell: CELL}``",
        "``residual_fn`` is an expression of ``x`` and ``y``, or a function of a Python config.",
    ),
    OldName(
        "``AttentionCellWrapper``",
        "``{class: intraattention, cell: CELL, attn_length: ..}``",
        "Its bare name means it, too; ``attention`` is the cell that attends to an encoder.",
    ),
    OldName(
        "``InputProjectionWrapper``, ``OutputProjectionWrapper``, ``EmbeddingWrapper``",
        "``{class: inputprojection, projection: ..}``, ``{class: outputprojection, units: ..}``, ``{class: embedding, "
        "embedding_size: ..}``, each with its ``cell``",
    ),
    OldName(
        "``DeviceWrapper``",
        "``{class: device, cell: CELL, device: /gpu:0}``",
        "A device that the machine does not have is an error, and no other is taken.",
    ),
    OldName(
        "``tf.nn.raw_rnn``",
        "``{class: rec, unit: {layers of a loop}}``: feedback is ``prev:output``, the end is ``end``",
        classes=("rawrnn",),
    ),
    OldName(
        "``static_state_saving_rnn``, ``stateful=True``",
        "``{class: rec, unit: CELL, stateful: true, from: x}``",
        "All begin with 0 in an epoch's first batch, and with ``streams: KEY``, a number for each sequence, where that "
        "in the same place of the batch before has another one (Keras' ``reset_states``, a saver's other key). "
        "``initial_state: keep_over_epoch_no_init`` does not begin with 0 in an epoch.",
        ("staticstatesavingrnn",),
    ),
    OldName(
        "``keras.layers.RNN(cell)``, ``LSTM``, ``GRU``, ``SimpleRNN``",
        "``{class: rec, unit: CELL, from: x}``",
        "Keras repeats the output of the last real frame at masked ones. A mask with gaps is a ``masked_computation``.",
        ("rnn",),
    ),
    OldName("``return_sequences=False``", "``{class: get_last_hidden_state, key: h, from: RNN}``"),
    OldName(
        "``return_state=True``, the second result of TensorFlow's loops",
        "``{class: get_last_hidden_state, key: c, from: RNN}``, a layer for each state",
        "``key`` is a name, of a cell inside with its path: ``forward/0/h``; or a number, as in TensorFlow's tuples.",
    ),
    OldName(
        "``keras.layers.ConvLSTM2D``",
        "``{class: rec, unit: {class: keras.ConvLSTM2D, kernel_size: 3, ..}, from: x}``",
        classes=("convlstm2d",),
    ),
    OldName(
        "Caffe2's ``recurrent_net``",
        "``{class: rec, unit: {layers of a loop}}``: a link is a layer, its offset ``prev:``",
        classes=("recurrentnet",),
    ),
    OldName(
        "Caffe2's ``LSTM``, ``BasicRNN``, ``LayerNormLSTM``",
        "``{class: rec, unit: {class: lstm, units: ..}, from: x}``; of several ``dim_out`` a list; ``initial_state: "
        "var`` for learned ones",
        "The biases of both products are one here, their sum. Beyond a sequence's length states are held there, and "
        "given out; with ``drop_states`` they are 0.",
    ),
    OldName(
        "Caffe2's ``MILSTM``, ``LayerNormMILSTM``",
        "``unit: milstm``, ``unit: layer_norm_milstm``",
        "The products have no biases here, as in the paper: Caffe2's are in beta1, beta2 and b.",
    ),
    OldName(
        "Caffe2's ``MultiRNNCell(residual_output_layers=[1])``",
        "``unit: [lstm, {class: residual, cell: lstm}]``",
        "Caffe2's gradients of residual layers are wrong.",
    ),
    OldName(
        "Caffe2's ``layered_LSTM``",
        "layers with ``initial_state: {h: .., c: ..}``, the last states of the layer below, each through "
        "``scaled_grad`` with the scale 0",
        classes=("layeredlstm",),
    ),
    OldName(
        "Caffe2's ``DropoutCell(cell)``",
        "``unit: {class: dropout, output_dropout: 0.4, cell: CELL}``",
    ),
    OldName(
        "Caffe2's ``LSTMWithAttention``",
        "``unit: {class: lstm_attention, kind: recurrent, encoder: LAYER, keys: LAYER}``",
        "There, contexts are computed beyond a sequence's length, too.",
    ),
    OldName(
        "Caffe2's ``AttentionCell``",
        "``unit: {class: attention, context: recurrent, cell: {class: milstm}, encoder: LAYER}``",
        "Any cell may be inside; ``context: input``, the default, is for all.",
    ),
)


OLD_OPTIONS: Mapping[str, str] = {
    "bidirectional": "Write 'direction: both'.",
    "cell": "Write 'unit'.",
    "go_backwards": "Write 'direction: -1'.",
    "merge_mode": "Write 'merge', and 'direction: both'.",
    "mask": "A mask is a layer masked_computation around this one.",
    "num_layers": "Write a list of units: [CELL, CELL].",
    "parallel_iterations": "Leave it out.",
    "reset_states": "Write 'streams', data that numbers the stream of each sequence.",
    "return_sequences": "Leave it out; the last frame alone is a layer {class: get_last_hidden_state, key: h}.",
    "return_state": "Leave it out; a state is a layer {class: get_last_hidden_state, key: c}.",
    "sequence_length": "Leave it out: data has its lengths.",
    "swap_memory": "Leave it out; 'recompute' keeps less for the gradients.",
    "time_major": "Leave it out: dims have no order here.",
    "units": "Write n_out, or say it in the unit: {class: CELL, units: ..}.",
    "zero_output_for_mask": "Leave it out; 'beyond_the_end: repeat' is for who needs the last output there.",
}
"""Options that other systems have for loops, and what to write for them here."""


def recurrence_instead(name: str) -> str | None:
    """What to write in place of a class; None for one that is none of these."""
    bare = name.rpartition(".")[2].lower().replace("_", "")
    for old in OLD_NAMES:
        if bare in old.classes:
            return f"Write {old.here}. {old.differs}".replace("``", "").strip()
    if known_name(name) is None:
        return None
    return f"It is the unit of a layer: write {{class: rec, unit: {name}}}, or in a loop {{class: rnn_cell, ..}}."
