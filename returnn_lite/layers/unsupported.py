"""Layer classes that RETURNN has and this compiler has not: their names are no misspellings of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

INSTEAD: Final[Mapping[str, str]] = {
    "cond": "Use 'switch', which computes both values and takes one for each element.",
    "concat_attention": "Use 'combine', 'activation' and 'linear' for the energy, softmax_over_spatial and dot.",
    "ctc_loss": "Give the layer of the posteriors 'loss: ctc'.",
    "edit_distance": "Give the layer 'loss: edit_distance', or use 'edit_distance_table'.",
    "elemwise_prod": "Use a 'variable' and 'combine' with kind mul.",
    "fast_bw": "Give the layer of the posteriors 'loss: ctc'.",
    "gauss_window_attention": "Compute the weights with 'range_in_axis' and 'eval', and use 'generic_attention'.",
    "get_rec_accumulated": "Set is_output_layer: true on the layer of the loop, and read it as 'LOOP/LAYER'.",
    "gradient": "Gradients are those of the losses; 'scaled_grad' scales them.",
    "loss": "Give the layer itself the loss.",
    "math_norm": "Use 'norm'.",
    "name_axis": "Give the axis a Dim (rl.Dim) where it is made.",
    "pick": "Use 'gather'.",
    "reverse_sequence": "Use 'rec' with direction -1, or 'slice' with a step of -1.",
    "scaled_gradient": "Use 'scaled_grad'.",
    "select_search_sources": "Read the layer itself: what a search reorders follows its hypotheses.",
    "source": "Refer to data as 'data' or 'data:KEY'.",
    "split_batch_time": "Dims are not merged with the batch here: read the layer before.",
    "swap_time_feature": "Use 'reinterpret_data' with set_axes.",
    "flatten_batch": "Losses and reductions see the frames of all sequences as they are: leave it out.",
    "unflatten_batch": "Losses and reductions see the frames of all sequences as they are: leave it out.",
    "weighted_sum": "Use a 'variable' and 'dot'.",
}
"""What to use in place of them."""

_OTHERS: Final = """
addonehot allophone_state_idx_parser alternating_real_to_complex associative_lstm batch_median_pooling batch_softmax
classes_to_length_distribution classes_to_length_distribution_global classes_to_segments complex_linear_projection dct
downsample fill_unused fold forced_align framewise_statistics gauss_weighting get_beamed_layer
global_attention_context_base hdf_dump hmm_factorization image_summary istft maskbased_eigenvector_beamforming
mel_filterbank multichannel_stft neural_transducer parametric_wiener_filter resize sampled_logits sampling
segment_alignment segment_input self_attention_share_kv sparse_softmax_cross_entropy_with_logits
split_concat_multi_channel stft synthetic_gradient tdnn tile_features time_chunking time_unchunking train_flag
unflatten_nd unsegment_input upsample variable_assign variable_read
"""
"""Those for which nothing stands in."""


def unsupported(name: str) -> str | None:
    """What to do in place of a class of RETURNN that is not here; None for any other name."""
    if name in INSTEAD:
        return INSTEAD[name]
    return "'rnn.py schema' has the classes that there are." if name in _OTHERS.split() else None
