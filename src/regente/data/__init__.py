"""One LightningDataModule per file."""
