"""Model folders as users have them, tiny and with random weights; needs the extra [labelers]."""

import pathlib

from fourm_jax.labelers import coco

HIDDEN = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VIT = {**HIDDEN, "intermediate_size": 32, "image_size": 32, "patch_size": 8}
LABELS = {"id2label": dict(enumerate(coco.CLASSES)), "num_labels": len(coco.CLASSES)}


def save(folder: pathlib.Path, model, processor) -> str:
    """Write weights (safetensors), config and image processor; return the path."""
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def clip(folder, transformers):
    config = transformers.CLIPVisionConfig(**VIT, projection_dim=12)
    model = transformers.CLIPVisionModelWithProjection(config)
    return save(folder, model, transformers.CLIPImageProcessorPil())


def dinov2(folder, transformers):
    config = transformers.Dinov2Config(**HIDDEN, image_size=32, patch_size=8, mlp_ratio=2)
    return save(folder, transformers.Dinov2Model(config), transformers.BitImageProcessorPil())


def imagebind(folder, transformers):
    model = transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=True)
    return save(folder, model, transformers.ViTImageProcessorPil())


def depth(folder, transformers, kind="relative"):
    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        mlp_ratio=2,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=16,
        fusion_hidden_size=8,
        neck_hidden_sizes=[8, 8, 8, 8],
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=5,
    )
    processor = transformers.DPTImageProcessorPil(
        size={"height": 28, "width": 28}, ensure_multiple_of=14, keep_aspect_ratio=True
    )
    return save(folder, transformers.DepthAnythingForDepthEstimation(config), processor)


def segformer(folder, transformers, labels=LABELS):
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        **labels,
    )
    processor = transformers.SegformerImageProcessorPil(size={"height": 64, "width": 64})
    return save(folder, transformers.SegformerForSemanticSegmentation(config), processor)


def mask2former(folder, transformers):
    backbone = transformers.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=5,
        **LABELS,
    )
    processor = transformers.Mask2FormerImageProcessorPil(size={"height": 64, "width": 64})
    return save(folder, transformers.Mask2FormerForUniversalSegmentation(config), processor)


def det(folder, transformers):
    config = transformers.YolosConfig(
        **{**VIT, "image_size": [64, 64]},
        num_detection_tokens=5,
        id2label={0: "person", 1: "dog"},
        num_labels=2,
    )
    model = transformers.YolosForObjectDetection(config)
    model.class_labels_classifier.layers[-1].bias.data[0] = 2.0  # or nothing would be found
    processor = transformers.YolosImageProcessorPil(size={"height": 64, "width": 64})
    return save(folder, model, processor)


def sam(folder, transformers):
    config = transformers.SamConfig(
        vision_config={
            **HIDDEN,
            "mlp_dim": 16,
            "image_size": 64,
            "patch_size": 8,
            "output_channels": 16,
            "num_pos_feats": 8,
            "global_attn_indexes": [1],
            "window_size": 4,
        },
        prompt_encoder_config={
            "hidden_size": 16,
            "image_size": 64,
            "patch_size": 8,
            "mask_input_channels": 4,
            "num_point_embeddings": 4,
        },
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    processor = transformers.SamImageProcessorPil(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}
    )
    model = transformers.SamModel(config)
    decoder = model.mask_decoder
    decoder.iou_prediction_head.proj_out.bias.data[:] = 1.0  # it is sure of its masks,
    for head in decoder.output_hypernetworks_mlps:  # whose borders are sharp
        head.proj_out.weight.data *= 1e8
    return save(folder, model, processor)
