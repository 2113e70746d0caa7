"""Each test fails when a release of Optuna moves what optuna_internals.py uses."""

import inspect
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from regente.sweeps.optuna_internals import FileLock, open_trial, set_user_attribute, stored_trial, trial_id
from regente.sweeps.study import Study
from regente.sweeps.trial_storage import open_storage


def test_a_trial_is_opened_by_its_id_reports_to_the_storage_and_is_pruned(tmp_path: Path) -> None:
    url = f"journal:{tmp_path / 'trials.jsonl'}"
    asking = optuna.create_study(study_name="s", storage=open_storage(url), direction="maximize")
    number = asking.ask().number
    pruner = optuna.pruners.ThresholdPruner(lower=0.5)
    reporting = optuna.load_study(study_name="s", storage=open_storage(url), pruner=pruner)
    storage = open_storage(url)
    id_ = trial_id(storage, "s", number)
    trial = open_trial(reporting, id_)
    trial.report(0.1, 3)
    assert asking.trials[number].intermediate_values == {3: 0.1}
    assert trial.should_prune()
    set_user_attribute(storage, id_, "seen", True)
    stored = stored_trial(storage, id_)
    assert (stored.intermediate_values, stored.user_attrs) == ({3: 0.1}, {"seen": True})


def test_the_journal_file_calls_only_acquire_and_release_of_its_lock(tmp_path: Path) -> None:
    calls = []

    class Lock(FileLock):
        def acquire(self) -> bool:
            calls.append("acquire")
            return True

        def release(self) -> None:
            calls.append("release")

    backend = JournalFileBackend(str(tmp_path / "trials.jsonl"), Lock())
    backend.append_logs([{"op_code": 0}])
    assert calls == ["acquire", "release"]
    assert list(backend.read_logs(0)) == [{"op_code": 0}]
    own = {name for name, _ in inspect.getmembers(JournalFileOpenLock, inspect.isfunction)}
    assert own == {"__init__", "acquire", "release"}


def test_an_interrupted_trial_is_repeated_once_also_in_a_database(tmp_path: Path) -> None:
    nodes = {
        "sampler": {"_target_": "optuna.samplers.RandomSampler"},
        "pruner": {"_target_": "optuna.pruners.NopPruner"},
    }
    first = {"optimizer.lr": 0.5}
    url = f"sqlite:///{tmp_path}/study.db"

    def study() -> Study:
        from regente.sweeps.distributions import Interval

        drawn = {"optimizer.lr": Interval(0.1, 1.0)}
        return Study("s", url, ["maximize"], drawn, "e/sweep", first=[first], **nodes)  # type: ignore[arg-type]

    interrupted = study().ask()
    assert interrupted.params == first
    later = study()  # of a session whose driver was killed
    repeated = later.ask()
    assert (repeated.params, repeated.number) == (first, interrupted.number + 1)
    later.tell(repeated.number, [1.0])
    assert later.counts() == (1, 0)
    assert study().ask().params != first
