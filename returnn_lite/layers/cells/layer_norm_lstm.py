"""The LSTM with layer normalisation, as TensorFlow and Caffe2 have it (Ba et al. 2016)."""

from __future__ import annotations

from returnn_lite.config.options import Init, option
from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.normed_lstm import NormedLstm


class LayerNormLstm(
    NormedLstm,
    names=("layernormlstm", "tf.layernormlstm", "caffe2.layernormlstm"),
    presets={"tf.layernormlstm": {"norm": None}, "caffe2.layernormlstm": {"norm": "joint", "forget_bias": 0.0}},
):
    """kernel [in+n, 4n], bias [4n] (with `norm: gate` none); gates i, j, f, o. gamma and beta [n] of the norms are in
    input, transform, forget, output and state; of a joint one [4n] in norm."""

    paper = "Ba et al. 2016"
    order = "ijfo"
    bias_name = "bias"

    forget_bias: float = option("what is added to the forget gate", default=1.0)

    def products(self, b: CellBuilder, x: View, recurrent: Dim, gates: Dim) -> tuple[View, View]:
        b.require_input_projection()
        for_x, for_h = b.joint_kernel(f"{self.folder}kernel", x, recurrent, gates)
        return b.input_product(x, for_x, self.bias(b, gates)), for_h


class LayerNormBasicLstm(LayerNormLstm, names=("layernormbasiclstm",)):
    """TensorFlow's first one, with dropout of the candidate: its bias, if there is one, starts as weights do."""

    paper = "Semeniuta et al. 2016"

    dropout_prob_seed: int | None = option(
        "of the masks",
        default=None,
        unsupported="all that a run draws follows from random_seed of the config. Leave it out",
    )

    def first_bias(self, b: CellBuilder) -> Init:
        return b.inits.bias_or("glorot_uniform")


CELLS = (LayerNormLstm, LayerNormBasicLstm)
