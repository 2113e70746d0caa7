"""The 95 % t interval of a mean, without numpy: importing scipy takes 0.8 CPU-s, a table of a sweep is there before.

Source: Student, "The probable error of a mean", Biometrika 6, 1908.
"""

import math
import statistics
from collections.abc import Sequence

LEVEL = 0.95
# scipy.special.stdtrit(df, 0.975), df = 1, 2, ...
T = (
    12.70620474,
    4.30265273,
    3.182446305,
    2.776445105,
    2.570581836,
    2.446911851,
    2.364624252,
    2.306004135,
    2.262157163,
    2.228138852,
    2.20098516,
    2.17881283,
    2.160368656,
    2.144786688,
    2.131449546,
    2.119905299,
    2.109815578,
    2.10092204,
    2.093024054,
    2.085963447,
    2.079613845,
    2.073873068,
    2.06865761,
    2.063898562,
    2.059538553,
    2.055529439,
    2.051830516,
    2.048407142,
    2.045229642,
    2.042272456,
    2.039513446,
    2.036933343,
    2.034515297,
    2.032244509,
    2.030107928,
    2.028094001,
    2.026192463,
    2.024394164,
    2.02269092,
    2.02107539,
    2.01954097,
    2.018081703,
    2.016692199,
    2.015367574,
    2.014103389,
    2.012895599,
    2.011740514,
    2.010634758,
    2.009575237,
    2.008559112,
    2.00758377,
    2.006646805,
    2.005745995,
    2.004879288,
    2.004044783,
    2.003240719,
    2.002465459,
    2.001717484,
    2.000995378,
    2.000297822,
)


def half_width(values: Sequence[float], level: float = LEVEL) -> float:
    """Half the width of the t interval of the mean; NaN for fewer than two values, and where all are equal."""
    n = len(values)
    if n < 2 or min(values) == max(values):
        return math.nan
    return quantile(n - 1, level) * statistics.stdev(values) / math.sqrt(n)


def quantile(df: float, level: float = LEVEL) -> float:
    """The factor of the standard error: the quantile (1 + level) / 2 of the t distribution."""
    if level == LEVEL and df == int(df) and df <= len(T):
        return T[int(df) - 1]
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + level) / 2))
