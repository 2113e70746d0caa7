"""From words and YAML files to one composed, checked config. Nothing here imports torch."""
