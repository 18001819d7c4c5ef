"""Networks of segmentation-models-pytorch on timm encoders (floor 0)."""
