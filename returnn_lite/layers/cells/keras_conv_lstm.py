"""The convolutional LSTM (Shi et al. 2015) without its peepholes, with Keras' parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, MarkedType, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.activations import KERAS_3
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.conv_lstm import ConvLstmOptions
from returnn_lite.layers.cells.convolution import Window, for_each_dim, window_on
from returnn_lite.layers.cells.gate_dropout import dropped, dropped_source, gate_masks, product_by_gates
from returnn_lite.layers.cells.lstm_arithmetic import LstmArithmetic
from returnn_lite.layers.cells.unit import States, Unit
from returnn_lite.layers.spatial_dims import Sizes

KERAS_2 = {"recurrent_activation": "hard_sigmoid", "implementation": 1}


class KerasConvLstm(
    ConvLstmOptions,
    names=(
        *("convlstm1d", "convlstm2d", "convlstm3d"),
        *("keras.convlstm1d", "keras.convlstm2d", "keras.convlstm3d"),
        *("keras.v1.convlstm1d", "keras.v1.convlstm2d", "keras.v1.convlstm3d"),
        *("keras.v2.convlstm1d", "keras.v2.convlstm2d", "keras.v2.convlstm3d"),
    ),
    presets={
        f"{system}convlstm{count}d": {"conv_ndims": count, **(KERAS_2 if ".v" in system else {})}
        for count in (1, 2, 3)
        for system in ("", "keras.", "keras.v1.", "keras.v2.")
    },
):
    """An LSTM at each place of a convolution of its source, whose products with h are convolutions, too.

    kernel [sizes.., in, 4n], recurrent_kernel [sizes.., n, 4n], orthogonal at first, bias [4n]; gates i, f, c, o. The
    state has a place for each of the source's product; beyond its borders all is 0.
    """

    old_options: ClassVar[Mapping[str, str]] = {**Cell.old_options, "filters": "units"}
    functions: ClassVar[Mapping[str, Mapping[str, str]]] = {f"keras.convlstm{count}d": KERAS_3 for count in (1, 2, 3)}

    strides: Sizes = option("step of kernel along each spatial dim, or along all", default=1)
    padding: Literal["valid", "same"] = option("whether kernel stays within the source, or sees zeros", default="valid")
    data_format: Literal["channels_first", "channels_last"] | None = option(
        "has no influence on results: the data say which dim is that of features", default=None
    )
    dilation_rate: Sizes = option("distance of the elements of kernel", default=1)
    activation: Activation | None = option("that of the candidate and of the cell state", default="tanh")
    recurrent_activation: Activation | None = option(
        "that of the gates. hard_sigmoid is Keras 3's relu6(x + 3) / 6 where the name of the cell is Keras' without v1 "
        "or v2, else clip(x / 5 + 1/2, 0, 1)",
        default="sigmoid",
    )
    unit_forget_bias: bool = option("whether the bias of the forget gate is 1 at first", default=True)
    dropout: float = option("of x in the products, one mask for all steps", default=0.0, least=0, below=1)
    recurrent_dropout: float = option("of h in the products, one mask for all steps", default=0.0, least=0, below=1)
    implementation: Literal[1, 2] = option("1: dropout has a mask for each gate; 2: one for all", default=2)

    def window(self, b: CellBuilder, x: MarkedType) -> Window:
        sizes = self.sizes(b)
        strides = for_each_dim(b, self.strides, len(sizes), "strides")
        dilation = for_each_dim(b, self.dilation_rate, len(sizes), "dilation_rate")
        return window_on(b, x, sizes, strides, dilation, self.padding)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        of_x = self.window(b, x.type)
        of_h = of_x.on_state(b.rows(out))
        gates = linear_dim([(out, 4)], 0)
        for_x = of_x.kernel(b, "kernel", of_x.feature, gates, b.inits.input)
        for_h = of_h.kernel(b, "recurrent_kernel", of_h.feature, gates, b.inits.recurrent_or("orthogonal"))
        count = 4 if self.implementation == 1 else 1
        dims = (*(one.input for one in of_x.spatial), of_x.feature)
        seen_x = dropped_source(b, x, self.dropout, dims, count)
        z = product_by_gates(b, seen_x, for_x, gates, out, lambda seen, part: of_x.product(b, seen, part))
        if self.use_bias:
            z = b.add(z, self._bias(b, gates))
        masks = gate_masks(b, "recurrent_dropout", self.recurrent_dropout, (*of_h.places, out), count)
        arithmetic = LstmArithmetic(
            out, activation=self.activation or "linear", recurrent_activation=self.recurrent_activation or "linear"
        )

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            seen = dropped(b, before["h"], masks)
            product = product_by_gates(b, seen, for_h, gates, out, lambda one, part: of_h.product(b, one, part))
            return arithmetic.after(b, b.blocks(b.add(now[0], product), gates, out, "ifjo"), before["c"])

        return Unit((z,), step)

    def _bias(self, b: CellBuilder, gates: Dim) -> View:
        if b.inits.given_bias is None and self.unit_forget_bias:
            return b.param("bias", (gates,), b.bias_blocks("unit_forget_bias", (0.0, 1.0, 0.0, 0.0)))
        return b.param("bias", (gates,), b.inits.bias)


CELLS = (KerasConvLstm,)
