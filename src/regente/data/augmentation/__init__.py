"""Random changes of training images on the device, with parameters of its own for each image."""
