"""PyTorch's names that are here, and every one that is not, with the reason.

A name that is added has to leave the table; one that a new PyTorch brings has to enter it. With -s
the shares are printed.
"""

import inspect
from importlib import import_module
from types import ModuleType

import pytest

import minidl

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

SPATIAL = "convolutions, pooling, resampling and what belongs to images: not there yet"
RECURRENT = "recurrent networks and packed sequences: not there yet"
BATCH_NORM = "normalisation by statistics of a batch or an instance: not there yet"
SPREAD = "training on several devices or machines: not there yet"
SPARSE = "sparse tensors are left out"
QUANTISED = "quantised tensors are left out"
COMPLEX = "complex numbers are left out"
DEVICES = "another device, layout or runtime than ours"
DEPRECATED = "deprecated or removed in PyTorch, which names its successor"
INTERNAL = "PyTorch's own machinery, constant or documentation, no interface"
LAYOUT = "storages and strides are NumPy's: views by index and shape, no writing past them"
FACTORS = "factors of matrices other than Cholesky's and the eigenvalues' of symmetric ones"
POLYNOMIALS = "orthogonal polynomials and Bessel functions"
RARE = "seldom used; the operators that make it up are there"
IN_PLACE_VIEWS = "in-place changes of a shape: assign the result of the form without underscore"
PIPES = "PyTorch has stopped to develop data pipes"
LOOPS = "calls a Python function per element"

LEFT_OUT: dict[str, dict[str, str]] = {
    "nn": {
        SPATIAL: """AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d
            AdaptiveMaxPool2d AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d ChannelShuffle
            CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d
            Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d CrossMapLRN2d Fold
            FractionalMaxPool2d FractionalMaxPool3d LPPool1d LPPool2d LPPool3d LazyConv1d LazyConv2d
            LazyConv3d LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d LocalResponseNorm
            MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d PixelShuffle
            PixelUnshuffle ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d
            ReplicationPad2d ReplicationPad3d Unfold Upsample UpsamplingBilinear2d
            UpsamplingNearest2d ZeroPad1d ZeroPad2d ZeroPad3d""",
        RECURRENT: "GRU GRUCell LSTM LSTMCell RNN RNNBase RNNCell RNNCellBase",
        BATCH_NORM: """BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d
            InstanceNorm3d LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyInstanceNorm1d
            LazyInstanceNorm2d LazyInstanceNorm3d SyncBatchNorm""",
        SPREAD: "DataParallel",
        DEPRECATED: "Container NLLLoss2d",
        INTERNAL: "factory_kwargs",
        RARE: """AdaptiveLogSoftmaxWithLoss Buffer LinearCrossEntropyLoss
            LinearCrossEntropyOptions""",
    },
    "nn.functional": {
        SPATIAL: """adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
            adaptive_max_pool1d_with_indices adaptive_max_pool2d adaptive_max_pool2d_with_indices
            adaptive_max_pool3d adaptive_max_pool3d_with_indices affine_grid avg_pool1d avg_pool2d
            avg_pool3d channel_shuffle conv1d conv2d conv3d conv_tbc conv_transpose1d
            conv_transpose2d conv_transpose3d fold fractional_max_pool2d
            fractional_max_pool2d_with_indices fractional_max_pool3d
            fractional_max_pool3d_with_indices grid_sample interpolate local_response_norm lp_pool1d
            lp_pool2d lp_pool3d max_pool1d max_pool1d_with_indices max_pool2d
            max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool1d max_unpool2d
            max_unpool3d native_channel_shuffle pixel_shuffle pixel_unshuffle unfold upsample
            upsample_bilinear upsample_nearest""",
        BATCH_NORM: "batch_norm instance_norm",
        RARE: "grouped_mm multi_head_attention_forward scaled_grouped_mm scaled_mm",
        INTERNAL: """ScalingType SwizzleType assert_int_or_pair boolean_dispatch
            handle_torch_function has_torch_function has_torch_function_unary
            has_torch_function_variadic""",
    },
    "nn.init": {
        DEPRECATED: """constant dirac eye kaiming_normal kaiming_uniform normal orthogonal sparse
            uniform xavier_normal xavier_uniform""",
    },
    "nn.utils": {
        DEPRECATED: "clip_grad_norm",
        SPATIAL: "convert_conv2d_weight_memory_format convert_conv3d_weight_memory_format",
        BATCH_NORM: """fuse_conv_bn_eval fuse_conv_bn_weights fuse_linear_bn_eval
            fuse_linear_bn_weights""",
    },
    "nn.utils.parametrizations": {},
    "nn.utils.parametrize": {},
    "nn.utils.rnn": {
        RECURRENT: """PackedSequence invert_permutation pack_padded_sequence pack_sequence
            pad_packed_sequence unpack_sequence""",
    },
    "optim": {SPARSE: "SparseAdam", RARE: "swap_in_optimizer_params_and_state"},
    "optim.lr_scheduler": {},
    "optim.swa_utils": {},
    "distributions": {
        RARE: """CatTransform ContinuousBernoulli CorrCholeskyTransform
            ExponentialFamily LKJCholesky LowRankMultivariateNormal StackTransform VonMises
            Wishart""",
    },
    "func": {
        INTERNAL: "debug_unwrap functionalize",
        BATCH_NORM: "replace_all_batch_norm_modules_",
        RARE: "linearize rearrange",
    },
    "autograd.functional": {},
    "data": {
        PIPES: """DFIterDataPipe DataChunk IterDataPipe MapDataPipe argument_validation
            functional_datapipe guaranteed_datapipes_determinism non_deterministic
            runtime_validation runtime_validation_disabled""",
    },
    "linalg": {
        FACTORS: """eig eigvals householder_product ldl_factor ldl_factor_ex ldl_solve lstsq lu
            lu_factor lu_factor_ex lu_solve matrix_norm matrix_rank cond pinv qr svd svdvals""",
        RARE: """cholesky_ex diagonal inv_ex matrix_exp norm solve_ex tensorinv tensorsolve
            vander""",
        INTERNAL: "LinAlgError",
    },
    "special": {
        POLYNOMIALS: """airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 chebyshev_polynomial_t
            chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w
            hermite_polynomial_h hermite_polynomial_he i0 i0e i1 i1e laguerre_polynomial_l
            legendre_polynomial_p modified_bessel_i0 modified_bessel_i1 modified_bessel_k0
            modified_bessel_k1 scaled_modified_bessel_k0 scaled_modified_bessel_k1
            shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u
            shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w spherical_bessel_j0""",
        RARE: "erfcx log_ndtr",
    },
    "Tensor": {
        COMPLEX: "angle cdouble cfloat chalf conj_physical conj_physical_ imag istft stft",
        SPARSE: """ccol_indices coalesce col_indices crow_indices dense_dim indices is_coalesced
            is_sparse is_sparse_csr resize_as_sparse_ row_indices smm sparse_dim sparse_mask
            sparse_resize_ sparse_resize_and_clear_ sspaddmm to_dense to_sparse to_sparse_bsc
            to_sparse_bsr to_sparse_coo to_sparse_csc to_sparse_csr values""",
        QUANTISED: """dequantize int_repr is_quantized q_per_channel_axis q_per_channel_scales
            q_per_channel_zero_points q_scale q_zero_point qscheme""",
        DEVICES: """ipu is_ipu is_maia is_meta is_mkldnn is_mps is_mtia is_nested is_vulkan is_xla
            is_xpu layout mtia record_stream to_mkldnn to_padded_tensor xpu""",
        LAYOUT: """as_strided as_strided_ as_strided_scatter const_data_ptr dim_order
            is_set_to is_shared new_empty_strided resize resize_ resize_as
            resize_as_ set_ share_memory_ storage_offset storage_type untyped_storage""",
        IN_PLACE_VIEWS: "squeeze_ swapaxes_ swapdims_ t_ transpose_ unsqueeze_",
        FACTORS: """geqrf lu lu_solve matrix_exp orgqr ormqr pinverse qr svd triangular_solve""",
        DEPRECATED: """eig lstsq new reinforce solve symeig volatile unsafe_chunk unsafe_split
            unsafe_split_with_sizes""",
        LOOPS: "apply_ map2_ map_",
        INTERNAL: """as_subclass grad_dtype hash_tensor index is_distributed is_inference
            module_load name slice_inverse""",
        RARE: """addbmm_ addr_ fill_diagonal_ float_power float_power_ frexp gcd gcd_ i0 i0_
            index_reduce index_reduce_ lcm lcm_ ldexp ldexp_ logaddexp2 logcumsumexp narrow_copy
            nextafter nextafter_ nonzero_static put put_ renorm renorm_""",
    },
}
THEIRS = {"data": "utils.data"}


def public(home: object) -> set[str]:
    """The classes and functions of a namespace that are meant for use."""
    if not isinstance(home, ModuleType):
        return {name for name in dir(home) if not name.startswith("_")}
    names = getattr(home, "__all__", None) or dir(home)
    found = {name: getattr(home, name, None) for name in names if not name.startswith("_")}
    return {
        name
        for name, value in found.items()
        if not inspect.ismodule(value)
        and callable(value)
        and str(getattr(value, "__module__", "torch")).split(".")[0] in ("torch", "None")
        and value is not torch.Tensor
    }


@pytest.mark.parametrize("place", LEFT_OUT)
def test_every_name_is_there_or_left_out_for_a_reason(place):
    if place == "Tensor":
        ours, theirs = minidl.Tensor, torch.Tensor
    else:
        ours = import_module(f"minidl.{place}")
        theirs = import_module(f"torch.{THEIRS.get(place, place)}")
    names = public(theirs)
    there = {name for name in names if hasattr(ours, name)}
    left_out = [name for words in LEFT_OUT[place].values() for name in words.split()]
    assert len(set(left_out)) == len(left_out)
    print(f"{place}: {len(there)} of {len(names)} names of torch {torch.__version__}")
    assert names - there == set(left_out)
