"""A pretrained encoder of text with a new head."""

from typing import Annotated

from annotated_types import Ge, Interval, Len

from regente.data.core.tokenizers import open_tokenizer
from regente.errors import ConfigError, Problem
from regente.models.backbone_with_head import BackboneWithHead
from regente.models.backbones.text_backbone import Pooling, TextBackbone
from regente.models.feature_bank import FeatureBank
from regente.models.transfer import Size


class TextTransfer(BackboneWithHead):
    """An encoder of the BERT family and a head of dense layers: token ids x [B, T] int -> logits [B, num_classes].

    `backbone` is a name of the Hugging Face hub or a folder. `pooling`: the mean of the states of all tokens, or the
    state of the first one (CLS). x is padded with the padding token of the encoder. `tokenizer` is the one of the
    data; it must have the same tokens as the encoder. See BackboneWithHead.
    """

    def __init__(
        self,
        backbone: str,
        input_shape: Annotated[list[Size], Len(1, 1)],
        vocab_size: Annotated[int, Ge(2)],
        num_classes: Annotated[int, Ge(2)],
        pooling: Pooling = "mean",
        weights: str | None = "DEFAULT",
        tokenizer: str | None = None,
        hidden: list[Size] | None = None,
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
        frozen: bool = True,
        seed: Annotated[int, Ge(0)] = 0,
        feature_bank: FeatureBank | None = None,
    ) -> None:
        origin = TextBackbone(backbone, weights, pooling, seed)
        require_same_tokens(origin, vocab_size, tokenizer, input_shape[0])
        super().__init__(origin, input_shape, num_classes, hidden, dropout, frozen, feature_bank)


def require_same_tokens(origin: TextBackbone, vocab_size: int, tokenizer: str | None, length: int) -> None:
    """Raises ConfigError when the encoder does not take the tokens of the data."""
    if tokenizer is not None and tokenizer != origin.name:
        own, other = (
            open_tokenizer(*pair).get_vocab()
            for pair in (("model.backbone", origin.name), ("data.tokenizer", tokenizer))
        )
        if own != other:
            what = (
                f"its tokens are not those of data.tokenizer={tokenizer}; ${{data.tokenizer}} would be right"
            )
            raise ConfigError([Problem(f"model.backbone={origin.name}", what)])
    if vocab_size > origin.vocab_size:
        what = f"the encoder has {origin.vocab_size} tokens; ${{data.vocab_size}} would be right"
        raise ConfigError([Problem(f"model.vocab_size={vocab_size}", what)])
    if length > origin.max_tokens:
        what = f"the encoder takes at most {origin.max_tokens} tokens; lower data.max_tokens"
        raise ConfigError([Problem(f"model.input_shape=[{length}]", what)])
