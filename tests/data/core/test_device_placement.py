"""Whether a data set lies on the device for the whole run."""

import pytest
import torch

from regente.data.augmentation.flip_crop import FlipCrop
from regente.data.core.batches import Batches
from regente.data.core.device_placement import DevicePlacement, free_memory, moves_to_device, size_of
from regente.data.core.seeding import seeded
from regente.data.core.sources import Split

GB = 10**9


@pytest.mark.parametrize(
    ("choice", "size", "free", "answer"),
    [
        ("auto", 3 * GB, 8 * GB, True),
        ("auto", 4 * GB, 8 * GB, False),  # the other half is the model's
        ("auto", 9 * GB, 8 * GB, False),
        ("auto", 1, None, False),  # a CPU: it lies there already
        (True, 7 * GB, 8 * GB, True),
        (False, 1, 8 * GB, False),
    ],
)
def test_it_does_when_told_to_or_when_half_of_the_free_memory_takes_it(
    choice: bool | str, size: int, free: int | None, answer: bool
) -> None:
    assert moves_to_device(choice, size, free) is answer  # type: ignore[arg-type]


def test_all_splits_count_with_inputs_and_labels() -> None:
    split = Split(torch.zeros(10, 3, 2, 2, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
    assert size_of({"train": split, "val": split}) == 2 * (10 * 12 + 10 * 8)


def test_on_a_cpu_nothing_moves() -> None:
    cpu, split = torch.device("cpu"), Split(torch.zeros(4, 1), torch.zeros(4))
    assert free_memory(cpu) is None
    assert DevicePlacement("auto").place({"train": split}, "train", cpu) is split
    moved = DevicePlacement(True).place({"train": split}, "train", cpu)
    assert moved.tensors[0].data_ptr() == split.x.data_ptr()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("choice", [True, False])
def test_batches_are_the_same_from_the_gpu_and_pinned_from_main_memory(choice: bool) -> None:
    device = torch.device("cuda", 0)
    split = Split(torch.randint(256, (100, 3, 8, 8), dtype=torch.uint8), torch.arange(100))
    settled = DevicePlacement(choice).place({"train": split}, "train", device)
    got = list(Batches(settled, 32, seed=1, pin=not choice))
    assert all((x.device == device) if choice else x.is_pinned() for x, _ in got)
    for (x, y), (want_x, want_y) in zip(got, Batches(split, 32, seed=1), strict=True):
        assert torch.equal(x.cpu(), want_x)
        assert torch.equal(y.cpu(), want_y)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_augments_like_a_cpu_and_its_random_state_stays() -> None:
    x, device = torch.rand(16, 3, 8, 8), torch.device("cuda", 0)
    before = torch.cuda.get_rng_state(device)
    with seeded(device, 1, 2, 3):
        torch.rand(3, device=device)
        got = FlipCrop()(x.to(device)).cpu()
    assert torch.equal(torch.cuda.get_rng_state(device), before)
    with seeded(torch.device("cpu"), 1, 2, 3):
        assert torch.equal(FlipCrop()(x), got)
