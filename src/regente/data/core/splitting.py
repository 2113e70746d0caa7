"""Who trains and who validates, as functions of what the samples hold."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

Members = dict[str, list[int]]  # the numbers of each split's samples


def carve(
    members: Members, digests: Sequence[bytes], labels: Sequence[int], seed: int, **shares: float
) -> Members:
    """The members with further splits taken out of `train`: of each class, these shares, one sample at least.

    Samples rank by the hash of (seed, digest), so that names, order and machine do not matter and equal ones go together.

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
    """How many of `total` each share is: one at least, and one at least is left."""
    counts = {name: max(1, round(total * share)) for name, share in shares.items()}
    while sum(counts.values()) >= total:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


def shared(members: Members, digests: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Pairs of equal samples in two splits, the later one first."""
    seen: dict[bytes, tuple[str, int]] = {}
    for split, numbers in members.items():
        for number in numbers:
            first, equal = seen.setdefault(digests[number], (split, number))
            if first != split:
                yield number, equal
