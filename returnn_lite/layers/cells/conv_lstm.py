"""The convolutional LSTM (Shi et al. 2015) without its peepholes, with TensorFlow's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from returnn_lite.config.options import Init, option
from returnn_lite.dims import Dim, MarkedType, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.convolution import Window, for_each_dim, window_on
from returnn_lite.layers.cells.lstm_arithmetic import LstmArithmetic
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit
from returnn_lite.layers.spatial_dims import Sizes


class ConvLstmOptions(Cell):
    """What convolutional LSTMs share: the sizes of the kernels, and the dims of states and output."""

    paper = "Shi et al. 2015"
    keys = ("h", "c")

    conv_ndims: int | None = option(
        "number of spatial dims; default: as many as kernel_size has", default=None, least=1, below=4
    )
    kernel_size: Sizes = option("size of the kernel along each spatial dim, or along all")
    use_bias: bool = option("whether there is a bias", default=True)

    def sizes(self, b: CellBuilder) -> tuple[int, ...]:
        """Those of the kernel along each spatial dim. Raises LayerError."""
        count = self.conv_ndims or (1 if isinstance(self.kernel_size, int) else len(self.kernel_size))
        if not 1 <= count <= 3:
            b.fail(f"a kernel goes over one to three spatial dims, not {count}")
        return for_each_dim(b, self.kernel_size, count, "kernel_size")

    def window(self, b: CellBuilder, x: MarkedType) -> Window:
        """What the kernel sees of a source. Raises LayerError."""
        return window_on(b, x, self.sizes(b))

    def channels(self, b: CellBuilder, window: Window, out: Dim) -> Dim:
        """The feature dim of the states."""
        return out

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        window = self.window(b, x)
        return dict.fromkeys(self.keys, (*window.places, self.channels(b, window, out)))

    def output(self, b: CellBuilder, x: MarkedType, out: Dim) -> tuple[Dim, ...]:
        return (*self.window(b, x).places, out)


class ConvLstm(
    ConvLstmOptions,
    names=("convlstm", "conv1dlstm", "conv2dlstm", "conv3dlstm"),
    presets={f"conv{count}dlstm": {"conv_ndims": count} for count in (1, 2, 3)},
):
    """An LSTM at each place of its source, whose products are convolutions over the places around.

    kernel [sizes.., in+n, 4n] over [x; h], biases [4n]; gates i, j, f, o. Beyond the borders all is 0; an even kernel
    sees one place more behind than before. TensorFlow's `skip_connection` appends x to the state, too, and so has no
    second step; here the state stays h.
    """

    old_options: ClassVar[Mapping[str, str]] = {
        **Cell.old_options,
        "output_channels": "units",
        "kernel_shape": "kernel_size",
    }

    input_shape: tuple[int, ...] | None = option("what spatial dims and features the source must have", default=None)
    skip_connection: bool = option("the output is h with the source behind it: units + in features", default=False)
    forget_bias: float = option("what is added to the forget gate", default=1.0)
    initializers: Init | None = option(
        "what TensorFlow's cell ignores", default=None, unsupported="give the layer forward_weights_init and bias_init"
    )

    def out_size(self) -> int | None:
        return None if self.skip_connection else self.units

    def out_size_on(self, x: MarkedType) -> int | None:
        if self.skip_connection and self.units is not None:
            return None if x.feature is None or x.feature.size is None else self.units + x.feature.size
        return self.units

    def window(self, b: CellBuilder, x: MarkedType) -> Window:
        window = super().window(b, x)
        found = tuple(dim.size for dim in (*window.places, window.feature))
        if self.input_shape not in (None, found):
            b.fail(f"input_shape is {self.input_shape}, but the source is {x}", "Leave it out.")
        return window

    def channels(self, b: CellBuilder, window: Window, out: Dim) -> Dim:
        if not self.skip_connection:
            return out
        of_x = window.feature.size
        if of_x is None or out.size is None:
            b.fail(f"skip_connection needs a source of known size, not {window.feature}")
        size = out.size - of_x if self.units is None else self.units
        if size < 1 or size + of_x != out.size:
            b.fail(
                f"with skip_connection the output has units + {of_x} features of the source, but it has {out.size}",
                "Give the layer an n_out of as many; without units these are what is left of it.",
            )
        return b.dim("channels", size)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        of_x = self.window(b, x.type)
        source, channels = of_x.feature, self.channels(b, of_x, out)
        recurrent = b.rows(channels)
        of_h = of_x.on_state(recurrent)
        gates, rows = linear_dim([(channels, 4)], 0), linear_dim([(source, 1), (recurrent, 1)], 0)
        kernel = of_x.kernel(b, "kernel", rows, gates, b.inits.input)
        z = of_x.product(b, x, b.slice(kernel, rows, 0, source))
        if self.use_bias:
            z = b.add(z, b.param("biases", (gates,), b.inits.bias))
        for_h = b.slice(kernel, rows, source, recurrent)
        arithmetic = LstmArithmetic(channels, self.forget_bias)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            total = b.add(now[0], of_h.product(b, before["h"], for_h))
            h, after = arithmetic.after(b, b.blocks(total, gates, channels, "ijfo"), before["c"])
            if self.skip_connection:
                return b.with_feature(b.concat([(h, channels), (now[1], source)], out), out), after
            return h, after

        return Unit((z, x) if self.skip_connection else (z,), step)


CELLS = (ConvLstm,)
