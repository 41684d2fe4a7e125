"""Lowerings of single steps of recurrent cells."""

from __future__ import annotations

from returnn_lite.ir.ops.recurrent_cells import GruStep, LstmStep, ResetAfterGruStep, SimpleRnnStep
from returnn_lite.tf.context import Family
from returnn_lite.tf.kernels.cells import gru_step, lstm_step, reset_after_gru_step, simple_rnn_step

lowers = Family()

lowers(LstmStep)(lstm_step)
lowers(GruStep)(gru_step)
lowers(ResetAfterGruStep)(reset_after_gru_step)
lowers(SimpleRnnStep)(simple_rnn_step)
