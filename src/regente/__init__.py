"""Regente: Hydra composes, Lightning plays, MLflow records, Regente conducts."""

__version__ = "0.1.0"
