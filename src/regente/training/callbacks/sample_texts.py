"""Texts that a language model generates during its training."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.data.core.vocabulary import VOCABULARY, write_vocabulary
from regente.data.protocols import SupportsText
from regente.jobs.job import Job
from regente.jobs.result import split_of
from regente.models.text_generation import Sampling, continue_text
from regente.tracking.journal import Journal

TEXTS, WORDS = 3, 50  # texts after each validation, and words of each


class SampleTexts(Callback):
    """Writes `samples/epoch-001.txt` after each validation: the model continues parts of the validation text.

    Also `vocabulary.txt`, which `regente generate` reads. It does nothing where the data has no `detokenise`.
    It has a random generator of its own, seeded by seed and epoch: the numbers of the run do not depend on it.
    """

    def __init__(self, job: Job, journal: Journal) -> None:
        self.job, self.journal = job, journal

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        is_text = isinstance(data, SupportsText)
        if is_text and trainer.is_global_zero:
            write_vocabulary(self.job.path / VOCABULARY, data.vocabulary)
            self.journal.artifact(self.job.path / VOCABULARY, "model")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        is_text = isinstance(data, SupportsText)
        model: Any = getattr(pl_module, "model", None)  # a user's task may have its networks elsewhere
        if trainer.sanity_checking or not is_text or model is None:
            return
        assert not model.training
        split, key = data.splits["val"], torch.Generator()
        starts = torch.arange(TEXTS) * len(split) // TEXTS
        start = split.batch(starts.to(split.tensors[0].device))[0].to(pl_module.device)
        key.manual_seed(data.seed * 1_000_003 + trainer.current_epoch)
        # on every rank: where the weights are sharded, all of them take part in each step
        added = continue_text(model, start, WORDS, start.shape[1], Sampling(), key)
        if trainer.is_global_zero:
            self._write(
                trainer,
                [
                    tuple(map(data.detokenise, pair))
                    for pair in zip(start.tolist(), added.tolist(), strict=True)
                ],
            )

    def _write(self, trainer: Trainer, texts: list[tuple[str, str]]) -> None:
        file = self.job.path / "samples" / f"epoch-{trainer.current_epoch + 1:03d}.txt"
        file.parent.mkdir(exist_ok=True)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if split_of(k)[0] == "val"}
        head = "  ".join(
            [f"epoch {trainer.current_epoch + 1}", *(f"{k} {v:.4g}" for k, v in metrics.items())]
        )
        body = "".join(f"\n> {given}\n{added}\n" for given, added in texts)
        file.write_text(f"{head}\n{body}", encoding="utf-8")
        self.journal.artifact(file, "samples")
