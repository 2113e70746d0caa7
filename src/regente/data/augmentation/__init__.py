"""Random changes of training images on the device, drawn for each image: x [B, C, H, W] float in 0 to 1 -> the same."""
