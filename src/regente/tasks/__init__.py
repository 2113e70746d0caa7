"""The LightningModules: loss, metrics and steps."""
