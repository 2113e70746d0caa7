"""Splits as a function of the content of the samples."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from regente.errors import ConfigError, DataError, Problem

SPLITS = ("train", "val", "test")
Members = dict[str, list[int]]  # the sample numbers of each split


def require_rest(val_share: float, test_share: float) -> dict[str, float]:
    """The shares by split.

    Raises:
        ConfigError: when they leave nothing to train on.
    """
    if val_share + test_share >= 1:
        what = f"{val_share + test_share:g} together; below 1 would leave something to train on"
        raise ConfigError([Problem("data.val_share, data.test_share", what)])
    return {"val": val_share, "test": test_share}


def members_of(splits: Iterable[str]) -> Members:
    """The sample numbers of each split, from the split of each sample."""
    members: Members = {name: [] for name in SPLITS}
    for number, split in enumerate(splits):
        members[split].append(number)
    return members


def carve_missing(
    where: Path,
    members: Members,
    given: Collection[str],
    digests: Sequence[bytes],
    labels: Sequence[int],
    names: Sequence[str],
    seed: int,
    shares: Mapping[str, float],
) -> str:
    """Move samples from `train` to val and test where they are not given; returns a note, empty where both are.

    Raises:
        DataError: when a class has too few different samples.
    """
    missing = {name: share for name, share in shares.items() if name not in given}
    if not missing:
        return ""
    try:
        members |= carve(members, digests, labels, seed, **missing)
    except ValueError as error:
        few = (
            f"{names[error.args[0]]!r} has too few different samples to carve {' and '.join(missing)} out of"
        )
        raise DataError(f"{where}: {few}; at least {len(missing) + 1} are needed") from error
    sizes = " and ".join(f"{len(members[name]):,} for {name}" for name in missing)
    return f"no {' and '.join(missing)} in the data: {sizes} carved out of train"


def carve(
    members: Members, digests: Sequence[bytes], labels: Sequence[int], seed: int, **shares: float
) -> Members:
    """The members with further splits taken out of `train`: these shares of each class, at least one sample.

    Samples are ranked by the hash of (seed, digest): names, order and machine do not matter, and equal samples stay
    together.

    Raises:
        ValueError: when a class has too few samples; its only argument is the label.
    """
    classes: dict[int, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number in members["train"]:
        rank = blake2b(b"%d " % seed + digests[number]).digest()
        classes[labels[number]][rank].append(number)
    parts: Members = {"train": [], **{name: [] for name in shares}}
    for label, ranked in classes.items():
        left = [ranked[rank] for rank in sorted(ranked)]
        if len(left) <= len(shares):
            raise ValueError(label)
        for name, count in _counts(len(left), shares).items():
            parts[name] += [number for equal in left[:count] for number in equal]
            del left[:count]
        parts["train"] += [number for equal in left for number in equal]
    return members | {name: sorted(numbers) for name, numbers in parts.items()}


def _counts(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of `total` each share is: at least one, and at least one is left."""
    counts = {name: max(1, round(total * share)) for name, share in shares.items()}
    while sum(counts.values()) >= total:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


def duplicates(members: Members, digests: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Pairs of equal samples in two splits, the later one first."""
    seen: dict[bytes, tuple[str, int]] = {}
    for split, numbers in members.items():
        for number in numbers:
            first, equal = seen.setdefault(digests[number], (split, number))
            if first != split:
                yield number, equal
