"""The figures of a search, as Optuna draws them with matplotlib."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import matplotlib
import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from regente.sweeps.study import quiet


def figures(study: optuna.Study, metrics: list[str]) -> dict[str, Figure]:
    """History, importance and parallel coordinates; of several objectives the Pareto front, and the importance for each."""
    trials = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len(trials) < 2:
        return {}
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as draw

    several = len(metrics) > 1
    drawings: dict[str, Callable[[], object]] = {}
    if not several:
        drawings["history"] = partial(draw.plot_optimization_history, study, target_name=metrics[0])
        drawings["parallel_coordinates"] = partial(
            draw.plot_parallel_coordinate, study, target_name=metrics[0]
        )
    elif len(metrics) <= 3:
        drawings["pareto_front"] = partial(draw.plot_pareto_front, study, target_names=metrics)
    for number, metric in enumerate(metrics):
        name = f"importance_{metric.replace('/', '_')}" if several else "importance"
        target = partial(_value, number=number) if several else None
        drawings[name] = partial(draw.plot_param_importances, study, target=target, target_name=metric)
    found: dict[str, Figure] = {}
    for name, drawing in drawings.items():
        # of parameters that all trials share, or values that are all the same, there is nothing to draw
        with quiet(), suppress(ValueError, RuntimeError, ZeroDivisionError):
            drawing()
            figure = pyplot.gcf()
            figure.set_size_inches(9, 5)
            if name == "parallel_coordinates":
                figure.subplots_adjust(bottom=0.25)  # its colour bar does not go with a layout engine
            else:
                figure.set_layout_engine("constrained")
            found[name] = figure
    for figure in found.values():
        pyplot.close(figure)
    return found


def _value(trial: FrozenTrial, number: int) -> float:
    """One of a trial's values."""
    return float(trial.values[number])
