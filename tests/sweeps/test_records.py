"""The sweep's own run, and a sweep without jobs."""

from collections import Counter
from pathlib import Path

import pytest

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.errors import ConfigError
from regente.jobs.job import freeze
from regente.sweeps.plan import make_plan
from regente.sweeps.records import Parent
from regente.sweeps.session import checked_source
from regente.sweeps.state import JobState
from regente.tracking.journal import read


def test_a_sweep_that_ends_a_second_time_records_only_what_has_changed(project: Path) -> None:
    made = compose("digits_mlp", ["tracking=none"])
    job = freeze(made.yaml(), project / "runs", experiment="e", overrides=[], command=[], choices={})
    first, second = (JobState(id_, [], "done", value=value) for id_, value in (("a", 0.5), ("b", 0.25)))
    for states in ([first], [first], [first, second]):
        parent = Parent(job, resolve(made.node), [])
        parent.recorder.start()
        parent.finish(states, False, {})
    lines = [line["values"] for line in read(job.journal, 0)[0] if line["kind"] == "metrics"]
    counts = Counter(key for line in lines for key in line)
    assert counts["sweep/jobs"] == counts["sweep/done"] == 2
    assert counts["sweep/failed"] == counts["sweep/pruned"] == counts["best/val/acc"] == 1


def test_a_sweep_over_no_values_is_refused(project: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"optimizer.lr=range\(0\) tracking=none: .*no values, so there is no job"
    ):
        checked_source(make_plan("digits_mlp", ["optimizer.lr=range(0)", "tracking=none"]))
