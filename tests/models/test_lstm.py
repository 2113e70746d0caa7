import pytest
import torch

from regente.models.lstm import LSTM


def test_it_has_the_tutorials_number_of_parameters_and_torchs_second_bias() -> None:
    model = LSTM(vocab_size=1000, num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 388_584 + 512


def test_it_starts_as_in_keras() -> None:
    model = LSTM(vocab_size=1000, num_classes=1000)
    recurrent = model.lstm.weight_hh_l0
    assert model.embedding.weight.abs().max() <= 0.05
    assert model.lstm.weight_ih_l0.abs().max() <= (6 / (128 + 512)) ** 0.5  # Glorot uniform
    torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(128), atol=1e-5, rtol=0)
    bias = model.lstm.bias_ih_l0.view(4, 128)
    assert bias[1].eq(1).all() and not bias[[0, 2, 3]].any()
    assert not model.lstm.bias_hh_l0.any()
    assert not model.head.bias.any()


def test_it_answers_at_every_position_from_the_words_up_to_there() -> None:
    model = LSTM(vocab_size=50, num_classes=50, num_layers=2, every_position=True).eval()
    x = torch.randint(50, (3, 7), generator=torch.Generator().manual_seed(0))
    logits = model(x)
    assert logits.shape == (3, 7, 50)
    torch.testing.assert_close(model(x[:, :4]), logits[:, :4])


def test_tied_weights_are_one_matrix_of_one_width() -> None:
    model = LSTM(vocab_size=50, num_classes=50, embedding=16, hidden=16, tie_weights=True)
    assert model.head.weight is model.embedding.weight
    with pytest.raises(ValueError, match="one width; embedding is 16, hidden is 32"):
        LSTM(vocab_size=50, num_classes=50, embedding=16, hidden=32, tie_weights=True)
    with pytest.raises(ValueError, match="need one vocabulary"):
        LSTM(vocab_size=50, num_classes=2, embedding=16, hidden=16, tie_weights=True)
