"""The table of operators: what each does to a gradient that passes through it. Imports no torch; a new tape operator is a row.

The names are ATen's, without leading underscores and without the in-place `_`.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["GATES", "KEEPS_ZERO", "MIXES", "SLICING", "UPSAMPLING", "Role", "role"]


class Role(Enum):
    """How an operator on a path from fork to join transforms the gradient."""

    LAYOUT = "the same numbers in another shape, order or type"
    SCALE = "times a constant or a parameter"
    MULTIPLY = "a product: by a constant, a parameter or a value computed from data"
    DIVIDE = "a quotient"
    ACTIVATION = "a pointwise function"
    POOL = "pooling, slicing, padding, resampling"
    NORM = "a normalisation"
    DROPOUT = "a random mask"
    WEIGHTED = "a weighted layer, where one operand is a parameter"
    ADD = "a sum"
    CONCAT = "a concatenation"
    STACK = "operands side by side along a new dimension"
    REDUCE = "a sum or mean over a dimension"
    LERP = "a weighted mean of two operands"
    FUSED_ADD = "a sum with a product of two more operands"
    MIX = "parallel streams mixed by a small matrix"
    OPAQUE = "no skip passes here: attention, softmax, sorting, anything unknown with several operands"


_ROWS: dict[Role, str] = {
    Role.LAYOUT: """getitem
        view unsafe_view reshape reshape_alias reshape_copy view_as permute transpose t swapaxes movedim squeeze unsqueeze expand clone contiguous
        to_copy alias as_strided flatten unflatten detach lift lift_fresh view_as_real view_as_complex real roll flip repeat
        pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle""",
    Role.SCALE: "neg rsub positive",
    Role.MULTIPLY: "mul multiply",
    Role.DIVIDE: "div divide true_divide",
    Role.ACTIVATION: """relu relu6 gelu silu mish elu celu selu sigmoid tanh softplus softsign hardswish hardsigmoid hardtanh leaky_relu rrelu_with_noise
        prelu prelu_kernel threshold log_sigmoid log_sigmoid_forward hardshrink softshrink tanhshrink clamp clamp_min clamp_max exp log log1p expm1 sqrt rsqrt
        pow square abs sin cos erf reciprocal""",
    Role.POOL: """avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d_with_indices max_pool3d_with_indices max_pool2d max_pool3d mkldnn_max_pool2d
        amax amin max min adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
        mkldnn_adaptive_avg_pool2d fractional_max_pool2d lp_pool2d slice select narrow split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unbind
        constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
        index_select upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_nearest_exact1d upsample_nearest_exact2d upsample_nearest_exact3d
        upsample_bilinear2d upsample_bilinear2d_aa upsample_bicubic2d upsample_bicubic2d_aa upsample_linear1d upsample_trilinear3d im2col col2im""",
    Role.NORM: """native_batch_norm cudnn_batch_norm miopen_batch_norm batch_norm_impl_index native_batch_norm_legit batch_norm_with_update native_layer_norm
        native_group_norm rms_norm fused_rms_norm fused_layer_norm sync_batch_norm SyncBatchNorm instance_norm local_response_norm weight_norm_interface""",
    Role.DROPOUT: "native_dropout fused_dropout feature_dropout alpha_dropout",
    Role.WEIGHTED: """convolution convolution_overrideable cudnn_convolution cudnn_convolution_transpose mkldnn_convolution slow_conv2d slow_conv3d
        slow_conv_dilated2d slow_conv_transpose2d conv_depthwise2d conv_depthwise3d thnn_conv2d mps_convolution mm bmm mv linear mkldnn_linear
        embedding embedding_bag trilinear grouped_mm scaled_mm lstm_mps mkldnn_rnn_layer cudnn_rnn thnn_fused_lstm_cell thnn_fused_gru_cell""",
    Role.ADD: "add sub",
    Role.FUSED_ADD: "addmm baddbmm addbmm addmv addcmul addcdiv",
    Role.CONCAT: "cat",
    Role.STACK: "stack",
    Role.REDUCE: "sum mean",
    Role.LERP: "lerp",
}
_ROLE = {name: role for role, names in _ROWS.items() for name in names.split()}
GATES = frozenset({"sigmoid", "hardsigmoid", "tanh", "hardtanh", "softmax", "exp", "erf", "clamp", "rsqrt", "reciprocal"})
KEEPS_ZERO = frozenset({"relu", "gelu", "silu", "mish", "tanh", "elu", "leaky_relu", "hardswish", "relu6", "mean", "sin", "erf", "softsign"})
SLICING = frozenset({"select", "slice", "narrow", "split", "split_with_sizes", "unsafe_split", "unbind", "index_select"})
MIXES = frozenset(
    ["softmax", "log_softmax", "cumsum", "cumprod", "sort", "topk", "logsumexp", "index", "gather", "scatter", "fft_r2c", "fft_c2r", "fft_c2c", "copy_slices"]
)  # operators of one operand that keep its shape and not its coordinates
UPSAMPLING = frozenset(
    name for name in _ROLE if name.startswith("upsample") or name in {"pixel_shuffle", "slow_conv_transpose2d", "cudnn_convolution_transpose"}
)


def role(name: str) -> Role:
    """The role of an operator; OPAQUE for any that the table does not hold."""
    return _ROLE.get(name.strip("_"), Role.OPAQUE)
