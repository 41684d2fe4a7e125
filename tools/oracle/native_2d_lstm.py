"""Lets RETURNN's 2D LSTM run without a GPU: C++ stand-ins for the CUDA calls that its op makes.

The op's source is compiled as it is; only what it calls is given here, so its numbers are RETURNN's.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import returnn.native_op
import returnn.tf.layers.rec

STAND_INS = r"""
#include <cstring>
#include <vector>
typedef int cudaStream_t;
enum { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
static int cudaMemcpy(void* to, const void* from, size_t size, int) { std::memcpy(to, from, size); return 0; }
static int cudaMemset(void* to, int value, size_t size) { std::memset(to, value, size); return 0; }
#undef HANDLE_ERROR
#define HANDLE_ERROR(call) (call)
static long long min(long long a, long long b) { return a < b ? a : b; }
static long long max(long long a, long long b) { return a > b ? a : b; }
// C = alpha * A B + beta * C for each of `count` triples, column-major as in BLAS.
static void batched_product(char trans_a, char trans_b, int m, int n, int k, float alpha, const float** as, int lda,
                            const float** bs, int ldb, float beta, const float** cs, int ldc, int count)
{
  for(int which = 0; which < count; ++which)
    for(int column = 0; column < n; ++column)
      for(int row = 0; row < m; ++row)
      {
        double sum = 0;
        for(int i = 0; i < k; ++i)
          sum += double(trans_a == 'T' ? as[which][i + row * lda] : as[which][row + i * lda])
               * double(trans_b == 'T' ? bs[which][column + i * ldb] : bs[which][i + column * ldb]);
        float* result = const_cast<float*>(cs[which]) + row + column * ldc;
        *result = float(alpha * sum + beta * *result);
      }
}
#undef Ndarray_sgemm_batched
#define Ndarray_sgemm_batched(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, count, finalize) \
  batched_product(ta, tb, m, n, k, *(alpha), a, lda, b, ldb, *(beta), c, ldc, count)
"""


def run_without_gpu() -> None:
    """From now on RETURNN compiles its 2D LSTM for the CPU, and its layer does not ask for a GPU."""
    op, layer = returnn.native_op.TwoDLSTM, returnn.tf.layers.rec.TwoDLSTMLayer
    if op.cpu_support:
        return
    op.c_extra_support_code = {"00_stand_ins": STAND_INS, **op.c_extra_support_code}
    op.cpu_support = True
    make = layer.__init__

    def make_as_with_gpu(self: Any, **options: Any) -> None:
        with mock.patch("returnn.tf.util.basic.is_gpu_available_in_session", return_value=True):
            make(self, **options)

    layer.__init__ = make_as_with_gpu
