"""A trained encoder of text with a new head."""

from typing import Annotated

from annotated_types import Ge, Interval, Len

from regente.data.core.tokenizers import open_tokenizer
from regente.errors import ConfigError, Problem
from regente.models.backbones.text_backbone import Pooling, TextBackbone
from regente.models.features.feature_bank import FeatureBank
from regente.models.transfer import Side, Transfer


class TextTransfer(Transfer):
    """An encoder of the BERT family and a head of dense layers: numbers of tokens x [B, T] int64 -> logits [B, num_classes].

    `backbone` is a name of the Hugging Face hub or a folder; `pooling` the mean over the tokens of a text, or the state
    of its first token (CLS). What x is padded with is the encoder's own padding. `tokenizer` is what has cut the texts
    of the data: of another name, its tokens must be the same. The rest is as in Transfer: frozen, the encoder stays as
    it is to the bit, and its features can be kept.
    """

    def __init__(
        self,
        backbone: str,
        input_shape: Annotated[list[Side], Len(1, 1)],
        vocab_size: Annotated[int, Ge(2)],
        num_classes: Annotated[int, Ge(2)],
        pooling: Pooling = "mean",
        weights: str | None = "DEFAULT",
        tokenizer: str | None = None,
        hidden: list[Side] | None = None,
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
        frozen: bool = True,
        seed: Annotated[int, Ge(0)] = 0,
        feature_bank: FeatureBank | None = None,
    ) -> None:
        origin = TextBackbone(backbone, weights, pooling, seed)
        self._agree(origin, vocab_size, tokenizer, input_shape[0])
        self._assemble(origin, input_shape, num_classes, hidden, dropout, frozen, feature_bank)

    def _adapt(self, shape: list[int], mean: list[float] | None, std: list[float] | None) -> int:
        """Tokens are taken as they are."""
        self.repeat, self.scale = 1, None
        return 1

    @staticmethod
    def _agree(origin: TextBackbone, vocab_size: int, tokenizer: str | None, tokens: int) -> None:
        """Raises ConfigError when the data's tokens are not those of the encoder."""
        if tokenizer is not None and tokenizer != origin.name:
            own, other = (
                open_tokenizer(*pair).get_vocab()
                for pair in (("model.backbone", origin.name), ("data.tokenizer", tokenizer))
            )
            if own != other:
                what = (
                    f"its tokens are not those of data.tokenizer={tokenizer}; leave it at ${{data.tokenizer}}"
                )
                raise ConfigError([Problem(f"model.backbone={origin.name}", what)])
        if vocab_size > origin.vocab_size:
            what = f"the encoder knows {origin.vocab_size} tokens; leave it at ${{data.vocab_size}}"
            raise ConfigError([Problem(f"model.vocab_size={vocab_size}", what)])
        if tokens > origin.most_tokens:
            what = f"the encoder takes {origin.most_tokens} at most; lower data.max_tokens"
            raise ConfigError([Problem(f"model.input_shape=[{tokens}]", what)])
