"""diffusers: UNets, transformers, autoencoders and controllers that a small config builds."""

from __future__ import annotations

from collections.abc import Mapping

from tests.corpus.case import Case

_TIME = "timestep=int64[2]<1000"
_TEXT = "encoder_hidden_states=float32[2,8,32]"
_SMALL = {"block_out_channels": (32, 64), "norm_num_groups": 8, "layers_per_block": 2}
_CROSS = {
    **_SMALL,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
}
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}
_TWO = {**_HEADS, "num_layers": 2}
_VAE = {"block_out_channels": (32, 64), "norm_num_groups": 8}
_VAE_BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
_IMAGE = ("sample=2x3x32x32",)
_LATENT = ("sample=2x4x16x16", _TIME)
_VIDEO = ("hidden_states=2x4x3x8x8", _TIME)
_JOINT = {**_TWO, "joint_attention_dim": 32, "pooled_projection_dim": 32}

# class -> (arguments, inputs)
_MODELS: dict[str, tuple[Mapping[str, object], tuple[str, ...]]] = {
    "UNet1DModel": (
        {"sample_size": 64, "in_channels": 2, "out_channels": 2, "extra_in_channels": 16, "block_out_channels": (32, 32, 64)},
        ("sample=2x2x64", _TIME),
    ),
    "UNet2DModel": (
        {**_SMALL, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
        ("sample=2x3x32x32", _TIME),
    ),
    "UNet2DConditionModel": (_CROSS, (*_LATENT, _TEXT)),
    "UNet3DConditionModel": (
        {
            **_CROSS,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
            "layers_per_block": 1,
        },
        ("sample=2x4x3x8x8", _TIME, _TEXT),
    ),
    "UNetSpatioTemporalConditionModel": (
        {
            "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32, "num_attention_heads": (2, 2),
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 96, "num_frames": 3,
        },
        ("sample=2x3x8x8x8", _TIME, "encoder_hidden_states=float32[2,1,32]", "added_time_ids=float32[2,3]"),
    ),
    "I2VGenXLUNet": (
        {
            "block_out_channels": (32, 64), "norm_num_groups": 8, "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 4,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"), "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        },
        ("sample=2x4x3x16x16", _TIME, "fps=int64[2]<30", "image_latents=2x4x3x16x16", "image_embeddings=float32[2,32]", _TEXT),
    ),
    "UVit2DModel": (
        {
            "hidden_size": 32, "cond_embed_dim": 32, "micro_cond_encode_dim": 8, "micro_cond_embed_dim": 40, "encoder_hidden_size": 32, "vocab_size": 40,
            "codebook_size": 32, "in_channels": 32, "block_out_channels": 32, "num_res_blocks": 1, "block_num_heads": 2, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 64, "sample_size": 8, "downsample": True, "upsample": True,
        },
        ("input_ids=int64[2,8,8]<32", _TEXT, "pooled_text_emb=float32[2,32]", "micro_conds=float32[2,5]"),
    ),
    "ControlNetModel": ({k: v for k, v in _CROSS.items() if k != "up_block_types"}, (*_LATENT, _TEXT, "controlnet_cond=2x3x128x128")),
    "AutoencoderKL": ({**_VAE, **_VAE_BLOCKS, "layers_per_block": 1}, _IMAGE),
    "AutoencoderKLFlux2": ({**_VAE, **_VAE_BLOCKS, "layers_per_block": 1}, _IMAGE),
    "AsymmetricAutoencoderKL": (
        {"down_block_out_channels": (32, 64), "up_block_out_channels": (32, 64), "norm_num_groups": 8, **_VAE_BLOCKS},
        _IMAGE,
    ),
    "AutoencoderKLTemporalDecoder": ({"block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D",) * 2, "layers_per_block": 1}, _IMAGE),
    "AutoencoderTiny": ({"encoder_block_out_channels": (16, 16, 16, 16), "decoder_block_out_channels": (16, 16, 16, 16)}, _IMAGE),
    "AutoencoderOobleck": (
        {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "channel_multiples": [1, 2], "decoder_channels": 8, "decoder_input_channels": 4},
        ("sample=2x2x64",),
    ),
    "AutoencoderDC": (
        {
            "latent_channels": 8, "attention_head_dim": 8, "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"), "encoder_block_out_channels": (16, 32), "decoder_block_out_channels": (16, 32),
            "encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1), "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)),
        },
        _IMAGE,
    ),
    "AutoencoderKLMochi": (
        {
            "encoder_block_out_channels": (32, 32, 32, 32), "decoder_block_out_channels": (32, 32, 32, 32), "layers_per_block": (1, 1, 1, 1, 1),
            "latent_channels": 4, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "in_channels": 15,
        },
        ("sample=1x3x7x32x32",),
    ),
    "AutoencoderKLWan": ({"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}, ("sample=1x3x5x16x16",)),
    "AutoencoderKLCogVideoX": (
        {
            "block_out_channels": (8, 8, 8, 8), "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2,
        },
        ("sample=1x3x5x16x16",),
    ),
    "VQModel": ({**_VAE, **_VAE_BLOCKS, "num_vq_embeddings": 32}, _IMAGE),
    "Transformer2DModel": ({**_TWO, "in_channels": 32, "norm_num_groups": 8, "cross_attention_dim": 32}, ("hidden_states=2x32x8x8", _TEXT)),
    "TransformerTemporalModel": ({**_TWO, "in_channels": 32, "norm_num_groups": 8}, ("hidden_states=8x32x4x4",)),
    "DiTTransformer2DModel": ({**_TWO, "sample_size": 8, "norm_num_groups": 8}, ("hidden_states=2x4x8x8", _TIME, "class_labels=int64[2]<1000")),
    "PixArtTransformer2DModel": (
        {**_TWO, "sample_size": 8, "cross_attention_dim": 32, "caption_channels": 32, "use_additional_conditions": False},
        ("hidden_states=2x4x8x8", _TEXT, _TIME),
    ),
    "SD3Transformer2DModel": (
        {**_JOINT, "sample_size": 8, "in_channels": 4, "out_channels": 4, "caption_projection_dim": 32, "pos_embed_max_size": 16},
        ("hidden_states=2x4x8x8", _TEXT, "pooled_projections=float32[2,32]", _TIME),
    ),
    "SD3ControlNetModel": (
        {**_JOINT, "sample_size": 8, "in_channels": 4, "out_channels": 4, "caption_projection_dim": 32, "pos_embed_max_size": 16},
        ("hidden_states=2x4x8x8", "controlnet_cond=2x4x8x8", _TEXT, "pooled_projections=float32[2,32]", _TIME),
    ),
    "FluxTransformer2DModel": (
        {**_JOINT, "in_channels": 4, "num_single_layers": 2, "axes_dims_rope": (4, 4, 8)},
        ("hidden_states=float32[2,16,4]", _TEXT, "pooled_projections=float32[2,32]", _TIME, "img_ids=float32[16,3]", "txt_ids=float32[8,3]"),
    ),
    "FluxControlNetModel": (
        {**_JOINT, "in_channels": 4, "num_single_layers": 2, "axes_dims_rope": [4, 4, 8]},
        (
            "hidden_states=float32[2,16,4]", "controlnet_cond=float32[2,16,4]", _TEXT, "pooled_projections=float32[2,32]", _TIME, "img_ids=float32[16,3]",
            "txt_ids=float32[8,3]",
        ),
    ),
    "ChromaTransformer2DModel": (
        {
            **_TWO, "in_channels": 4, "num_single_layers": 2, "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 8), "approximator_num_channels": 8,
            "approximator_hidden_dim": 32, "approximator_layers": 2,
        },
        ("hidden_states=float32[2,16,4]", _TEXT, _TIME, "img_ids=float32[16,3]", "txt_ids=float32[8,3]"),
    ),
    "AuraFlowTransformer2DModel": (
        {
            **_HEADS, "sample_size": 8, "num_mmdit_layers": 1, "num_single_dit_layers": 2, "joint_attention_dim": 32, "caption_projection_dim": 32,
            "pos_embed_max_size": 16,
        },
        ("hidden_states=2x4x8x8", _TEXT, "timestep=float32[2]"),
    ),
    "PriorTransformer": (
        {**_TWO, "embedding_dim": 32, "num_embeddings": 7, "additional_embeddings": 4},
        ("hidden_states=float32[2,32]", _TIME, "proj_embedding=float32[2,32]", "encoder_hidden_states=float32[2,7,32]"),
    ),
    "SanaTransformer2DModel": (
        {
            **_TWO, "in_channels": 4, "out_channels": 4, "num_cross_attention_heads": 2, "cross_attention_head_dim": 16, "cross_attention_dim": 32,
            "caption_channels": 32, "sample_size": 8,
        },
        ("hidden_states=2x4x8x8", _TEXT, _TIME),
    ),
    "CogVideoXTransformer3DModel": (
        {
            **_TWO, "in_channels": 4, "out_channels": 4, "time_embed_dim": 8, "text_embed_dim": 32, "sample_width": 8, "sample_height": 8, "sample_frames": 9,
            "max_text_seq_length": 8,
        },
        ("hidden_states=2x3x4x8x8", _TEXT, _TIME),
    ),
    "CogView4Transformer2DModel": (
        {**_TWO, "in_channels": 4, "out_channels": 4, "text_embed_dim": 32, "time_embed_dim": 32, "condition_dim": 8, "sample_size": 8},
        ("hidden_states=2x4x8x8", _TEXT, _TIME, "original_size=float32[2,2]", "target_size=float32[2,2]", "crop_coords=float32[2,2]"),
    ),
    "LTXVideoTransformer3DModel": (
        {**_TWO, "in_channels": 8, "out_channels": 8, "cross_attention_dim": 32, "caption_channels": 32},
        ("hidden_states=float32[2,12,8]", _TEXT, _TIME, "encoder_attention_mask=int64[2,8]<2", "video_coords=float32[2,3,12]"),
    ),
    "MochiTransformer3DModel": (
        {**_TWO, "pooled_projection_dim": 32, "in_channels": 4, "text_embed_dim": 32, "time_embed_dim": 8, "max_sequence_length": 8},
        (*_VIDEO, _TEXT, "encoder_attention_mask=int64[2,8]<2"),
    ),
    "LatteTransformer3DModel": (
        {**_TWO, "sample_size": 8, "in_channels": 4, "out_channels": 4, "patch_size": 2, "caption_channels": 32, "cross_attention_dim": 32, "video_length": 3,
         "norm_type": "ada_norm_single", "norm_elementwise_affine": False},
        (*_VIDEO, _TEXT),
    ),
    "WanTransformer3DModel": (
        {**_TWO, "in_channels": 4, "out_channels": 4, "text_dim": 32, "freq_dim": 16, "ffn_dim": 64, "rope_max_seq_len": 32},
        (*_VIDEO, _TEXT),
    ),
    "StableAudioDiTModel": (
        {
            **_TWO, "sample_size": 16, "in_channels": 4, "out_channels": 4, "num_key_value_attention_heads": 2, "cross_attention_dim": 32, "time_proj_dim": 8,
            "global_states_input_dim": 8, "cross_attention_input_dim": 32,
        },
        ("hidden_states=2x4x16", _TIME, _TEXT, "global_hidden_states=float32[2,1,8]"),
    ),
    "HunyuanDiT2DModel": (
        {
            **_TWO, "in_channels": 4, "patch_size": 2, "sample_size": 8, "hidden_size": 32, "cross_attention_dim": 32, "cross_attention_dim_t5": 32,
            "pooled_projection_dim": 32, "text_len": 8, "text_len_t5": 8, "use_style_cond_and_image_meta_size": False,
        },
        (
            "hidden_states=2x4x8x8", "timestep=float32[2]", _TEXT, "text_embedding_mask=float32[2,8]", "encoder_hidden_states_t5=float32[2,8,32]",
            "text_embedding_mask_t5=float32[2,8]", "image_rotary_emb=float32[2,16,16]",
        ),
    ),
}  # fmt: skip


def cases() -> list[Case]:
    """One case for each class."""
    return [
        Case(library="diffusers", name=name, target=f"diffusers:{name}", arguments=arguments, inputs=inputs) for name, (arguments, inputs) in _MODELS.items()
    ]
