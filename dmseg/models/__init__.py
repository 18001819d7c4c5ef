"""Networks of segmentation-models-pytorch on timm encoders."""
