"""Long short-term memory (Hochreiter and Schmidhuber 1997, with forget gate: Gers et al. 2000)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from returnn_lite.config.options import Activation, Init, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.sources import Storage
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.lstm_arithmetic import LstmArithmetic, lstm_unit
from returnn_lite.layers.cells.projected import Projected
from returnn_lite.layers.cells.unit import Unit


class LstmOptions(Projected):
    """The options of LSTMs; a subclass says how their weights are called, and in which order the gates are."""

    old_options: ClassVar[Mapping[str, str]] = {
        "dim_out": "units",
        **Projected.old_options,
        "proj_clip": "projection_clip",
        "use_peepholes": "peephole",
        "use_peephole": "peephole",
    }
    sees_beside_h = True
    order: ClassVar[str] = "jifo"
    folder: ClassVar[str] = ""
    """What the names of the parameters begin with."""
    bias_name: ClassVar[str] = "b"

    projection_clip: float | None = option(
        "the projection is clipped to so much; without one, or of 0 or less, it does nothing", default=None
    )
    peephole: bool | None = option(
        "whether gates see the cell state: w_i_diag and w_f_diag that before, w_o_diag that after", default=False
    )
    cell_clip: float | None = option("the cell state is clipped to so much; not if 0 or less", default=None)
    forget_bias: float = option("what is added to the forget gate", default=0.0)
    activation: Activation | None = option("that of the candidate and of the cell state", default="tanh")
    recurrent_activation: Activation | None = option("that of the gates", default="sigmoid")
    use_bias: bool = option("whether there is a bias", default=True)
    rec_weight_dropout: float = option("of the weights of h, one mask for a sequence", default=0.0, least=0, below=1)
    initializer: Init | None = option("what all weights start with, where the layer says nothing", default=None)
    memory_optimization: bool = option(
        "Caffe2's: whether gates are computed again on the backward pass",
        default=False,
        unsupported="nothing is computed again there; the numbers are the same. Leave it out",
    )
    drop_states: bool = option(
        "Caffe2's: whether states are 0 beyond the end of a sequence",
        default=False,
        unsupported="a sequence has no frames beyond its end, and its last states are those of its last frame",
    )

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b = b.starting_with(self.initializer)
        hidden, recurrent = self.hidden(b, out), b.rows(out)
        gates = linear_dim([(hidden, len(self.order))], 0)
        z, weights = self.products(b, x, recurrent, gates)
        weights = b.dropped_weights(weights, self.rec_weight_dropout)
        return lstm_unit(b, z, weights, recurrent, self.order, self.arithmetic(b, hidden, out))

    def products(self, b: CellBuilder, x: View, recurrent: Dim, gates: Dim) -> tuple[View, View]:
        """The input product [gates] with the bias added, and the weights of h [recurrent, gates]."""
        raise TypeError(f"{type(self).__name__} has no weights")

    def bias(self, b: CellBuilder, gates: Dim) -> View | None:
        if not self.use_bias:
            return None
        storage = Storage(forget_bias=self.forget_bias)
        return b.param(self.folder + self.bias_name, (gates,), self.first_bias(b), storage=storage)

    def first_bias(self, b: CellBuilder) -> Init:
        """What the bias starts with."""
        return b.inits.bias

    def arithmetic(self, b: CellBuilder, hidden: Dim, out: Dim) -> LstmArithmetic:
        """What the options say of what follows the products; makes the parameters of that."""
        seeing = [gate for gate in "fio" if gate in self.order] if self.peephole else []
        return LstmArithmetic(
            hidden,
            self.forget_bias,
            self.activation or "tanh",
            self.recurrent_activation or "sigmoid",
            peepholes={gate: b.param(f"{self.folder}w_{gate}_diag", (hidden,), b.inits.input) for gate in seeing},
            cell_clip=self.cell_clip,
            projection=self.projector(b, f"{self.folder}projection/kernel", out, self.projection_clip),
        )


class Lstm(
    LstmOptions,
    names=("lstm", "lstmp", "nativelstm", "nativelstm2", "lstmblock", "lstmblockfused", "cudnnlstm", "vanillalstm"),
):
    """W [in, 4n], W_re [n, 4n], b [4n]; gates j, i, f, o; no forget bias unless an option says."""

    paper = "Gers et al. 2000"

    def products(self, b: CellBuilder, x: View, recurrent: Dim, gates: Dim) -> tuple[View, View]:
        bias = self.bias(b, gates)
        if b.input_projection:
            z = b.input_product(x, b.param("W", (b.source(x), gates), b.inits.input), bias)
        else:
            z = b.with_feature(b.relabel(x, b.feature_of(x), gates, f"gates of '{b.name}'"), gates)
            z = z if bias is None else b.add(z, bias)
        return z, b.param("W_re", (recurrent, gates), b.inits.recurrent)


class LowMemoryLstm(LstmOptions, names=("nativelstmlowmem",)):
    """The LSTM with one kernel: W [in+n, 4n], b [4n]; gates j, i, f, o."""

    paper = "Gers et al. 2000"
    kernel: ClassVar[str] = "W"

    def products(self, b: CellBuilder, x: View, recurrent: Dim, gates: Dim) -> tuple[View, View]:
        b.require_input_projection()
        for_x, for_h = b.joint_kernel(self.folder + self.kernel, x, recurrent, gates)
        return b.input_product(x, for_x, self.bias(b, gates)), for_h


class StandardLstm(
    LowMemoryLstm,
    names=("standardlstm", "tf.lstm", "tf.lstmblock", "tf.lstmblockfused", "cudnncompatiblelstm"),
    presets={"cudnncompatiblelstm": {"forget_bias": 0.0}},
):
    """TensorFlow's LSTM: lstm_cell/kernel [in+n, 4n], lstm_cell/bias [4n]; gates i, j, f, o; a forget bias of 1 is
    added."""

    paper = "Sak et al. 2014"
    order = "ijfo"
    folder = "lstm_cell/"
    kernel = "kernel"
    bias_name = "bias"

    forget_bias: float = option("what is added to the forget gate", default=1.0)
    num_unit_shards: int | None = option("has no influence on results: the kernel is whole", default=None)
    num_proj_shards: int | None = option("has no influence on results: the projection is whole", default=None)
    state_is_tuple: bool = option("has no influence on results: states have names", default=True)


class BasicLstm(StandardLstm, names=("basiclstm",)):
    """TensorFlow's LSTM under the names of its first one: basic_lstm_cell/kernel, basic_lstm_cell/bias."""

    paper = "Zaremba et al. 2014"
    folder = "basic_lstm_cell/"


CELLS = (Lstm, LowMemoryLstm, StandardLstm, BasicLstm)
