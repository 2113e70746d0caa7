"""Trained networks without their classifier: from torchvision, from timm, or from one's own finished run."""
