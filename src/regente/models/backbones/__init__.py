"""Pretrained networks without their classifier: of torchvision, timm, transformers, or a finished run."""
