"""What the server of the tests imports beside modules: the whole of torchmetrics, which most of the tests' own parts ask for."""

from torchmetrics import MeanMetric  # noqa: F401
