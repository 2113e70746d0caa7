"""The `regente` command. Nothing here imports torch, Lightning or MLflow."""

import gc
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from regente.cli import analysis, cache, compare, inference, resume, sweep, tracking
from regente.cli.request import split
from regente.errors import ConfigError, Problem, RegenteError, Stopped
from regente.jobs.fast_exit import FastExit
from regente.jobs.streams import ignore_write_errors, printable

TRAIN = """Train a model: an EXPERIMENT with OVERRIDES.

\b
regente train                              the default experiment, digits_cnn
regente train mnist_cnn                    another experiment; regente list shows all
regente train optimizer.lr=3e-3            another value of a setting
regente train model=mlp trainer=debug      other options of config groups
regente train -m optimizer.lr=1e-2,1e-3    a sweep: one run per value
regente train --cfg job                    print the composed config; run nothing
regente resume RUN                         resume an interrupted run

Overrides are Hydra's: key=value sets, +key=value adds, ~key removes, group=option chooses. A key that the
class accepts needs no +. Your own ./conf and ./experiments come before the packaged ones.
"""

CHECK = """Check an EXPERIMENT with OVERRIDES; run nothing.

It prints every problem of the config.

\b
regente check mnist_cnn trainer.max_epoch=3
regente check -m optimizer.lr=1e-2,1e-3    every job of a sweep; of a search, what can be known before it
regente check model.width=9 --dead-keys    does each override change a number? exit code 1 if one does not

Devices and files are checked when a run starts, not here.
"""


class Commands(click.Group):
    """Suggests a command for an unknown one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            from regente.config.discovery import suggest

            ctx.fail(f"no such command: {args[0]}; {suggest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of registration, not of the alphabet


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="regente", prog_name="regente")
def regente() -> None:
    """Hydra composes, Lightning trains, MLflow records, Regente conducts.

    \b
    regente train                 train the default experiment
    regente list                  list experiments and config groups
    regente compare               compare the runs: which is better, and is it real
    regente ui                    the runs in MLflow's UI
    regente COMMAND --help        help on a command

    \b
    Tab completion: add this line to ~/.bashrc (write zsh or fish instead of bash for these shells):
    eval "$(_REGENTE_COMPLETE=bash_source regente)"
    """


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from regente.cli.completion import complete

    return complete(list(ctx.params.get("words") or ()), incomplete)


def request(command: Any) -> Any:
    """The arguments of both `train` and `check`."""
    words = click.argument(
        "words",
        nargs=-1,
        type=click.UNPROCESSED,
        metavar="[EXPERIMENT] [OVERRIDES]...",
        shell_complete=_complete,
    )
    debug = click.option("--debug", is_flag=True, help="Print full tracebacks.")
    folder = click.option(
        "--config-dir", type=click.Path(path_type=Path), expose_value=False, callback=_add_config_dir,
        help="A folder of configs with priority over all others.",
    )  # fmt: skip
    return words(debug(folder(command)))


def _add_config_dir(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is not None:
        from regente.config.discovery import add_config_dir

        add_config_dir(path)


@regente.command(help=TRAIN, context_settings={"ignore_unknown_options": True})
@request
@click.option(
    "-m", "--multirun", is_flag=True, help="A sweep: run every combination of the comma-separated values."
)
@click.option("--dry-run", is_flag=True, help="With -m: check and print the jobs; run nothing.")
@click.option("-c", "--cfg", type=click.Choice(["job", "hydra", "all"]), help="Print the composed config.")
@click.option("-p", "--package", help="With --cfg: only this part, for example model.")
@click.option("--resolve", is_flag=True, help="With --cfg: replace references by their values.")
@click.option(
    "-i", "--info", is_flag=False, flag_value="all", metavar="[TOPIC]",
    help="Print Hydra's information: all, config, defaults, defaults-tree, plugins or searchpath.",
)  # fmt: skip
def train(
    words: tuple[str, ...],
    debug: bool,
    multirun: bool,
    dry_run: bool,
    cfg: str | None,
    package: str | None,
    resolve: bool,
    info: str | None,
) -> None:
    resume.refuse_in_train(words)
    experiment, overrides = split(words)
    if cfg:
        return show(experiment, overrides, cfg, package, resolve)
    if package or resolve:
        raise ConfigError([Problem("--package, --resolve", "go with --cfg job")])
    if info:
        from regente.config.discovery import require_experiment
        from regente.config.hydra_main import run_hydra

        require_experiment(experiment)
        return run_hydra(experiment, overrides, ["--info", info], lambda _: None)
    rerun = "rerun=true" in overrides
    overrides = [word for word in overrides if word != "rerun=true"]
    if dry_run and not multirun:
        from regente.config.compose import compose

        if not compose(experiment, overrides).multirun:
            raise ConfigError([Problem("--dry-run", "goes with -m; regente check looks at one run")])
    elif not multirun:
        from regente.training.run import Request, SweepRequested, run

        with suppress(SweepRequested):
            sys.exit(run(Request(experiment, overrides), debug=debug).exit_code)
    from regente.sweeps.session import sweep

    sys.exit(sweep(experiment, overrides, rerun=rerun, dry_run=dry_run)[0])


@regente.command(name="check", help=CHECK, context_settings={"ignore_unknown_options": True})
@request
@click.option("-m", "--multirun", is_flag=True, help="Check a sweep.")
@click.option(
    "--dead-keys", is_flag=True, help="Train two steps with and without each override, and compare them."
)
def check_(words: tuple[str, ...], debug: bool, multirun: bool, dead_keys: bool) -> None:
    from regente.training.prepare import check, compose

    experiment, overrides = split(words)
    if dead_keys:
        if multirun:
            raise ConfigError(
                [Problem("--dead-keys", "goes with one run; regente importance SWEEP tells it of a sweep")]
            )
        sys.exit(_print_dead_keys(experiment, overrides))
    found = ""
    if not multirun:
        composed = compose(experiment, overrides)
        multirun = composed.multirun  # then only its jobs have all values
        if not multirun:
            check(composed.node)
    if multirun:
        from regente.sweeps.plan import make_plan
        from regente.sweeps.session import check_sweep

        found = f"{check_sweep(make_plan(experiment, overrides))}, "
    click.echo(f"{without_secrets(' '.join([experiment, *overrides]))}: {found}no problems")


def _print_dead_keys(experiment: str, overrides: list[str]) -> int:
    from regente.analysis.dead_keys import dead_keys

    found = []
    for tested in dead_keys(experiment, overrides):
        click.echo(printable(without_secrets(f"{tested.word}: {tested.text}")))
        found.append(tested.dead)
    return int(any(found))


@regente.command(name="list")
def list_() -> None:
    """List the experiments, and the options of every config group."""
    from regente.config.discovery import DEFAULT_EXPERIMENT, experiment_files, groups, header_comment

    click.secho("experiments", bold=True)
    names = experiment_files()
    width = max(map(len, [*names, *(option for options in groups().values() for option in options)])) + 2
    for name, file in names.items():
        mark = " (the default)" if name == DEFAULT_EXPERIMENT else ""
        click.echo(f"  {name:<{width}}{without_secrets(header_comment(file))}{mark}")
    for group, options in groups().items():
        click.secho(group, bold=True)
        for option, file in options.items():
            click.echo(f"  {option:<{width}}{without_secrets(header_comment(file))}")


for command in (
    resume.resume,
    resume.fork,
    *inference.COMMANDS,
    compare.compare,
    *analysis.COMMANDS,
    sweep.sweep,
    cache.cache,
    tracking.ui,
    tracking.sync,
):
    regente.add_command(command)


def without_secrets(text: str) -> str:
    """What echoes words of the command line, without the secrets in them: terminals are recorded too."""
    from regente.config.redaction import Redactor

    return Redactor().text(text)


def show(experiment: str, overrides: list[str], what: str, package: str | None, resolve: bool) -> None:
    """Print the composed config, or a part of it."""
    from omegaconf import OmegaConf

    from regente.config.interpolation import to_yaml
    from regente.training.prepare import check, compose

    touched = {override.lstrip("+~").split("=")[0].split(".")[0] for override in overrides}
    composed = compose(experiment, overrides)
    check(composed.node, touched)
    node: Any = {
        "job": composed.node,
        "hydra": {"hydra": composed.hydra},
        "all": {**composed.node, "sweep": composed.sweep, "hydra": composed.hydra},
    }[what]
    if package and package != "_global_":
        node = OmegaConf.select(OmegaConf.create(node), package)
        if node is None:
            raise ConfigError([Problem(f"--package {package}", "there is no such part of the config")])
    click.echo(
        to_yaml(node, resolve=resolve) if OmegaConf.is_config(node) or isinstance(node, dict) else node,
        nl=False,
    )


def main() -> None:
    """Run the command line; an error is a line on stderr and an exit code."""
    gc.disable()  # composing and importing create many objects and little garbage; the worker enables it again
    if (cwd := str(Path.cwd())) not in sys.path:
        sys.path.append(cwd)  # the user's own models and data, after installed packages
    if "_REGENTE_COMPLETE" in os.environ:
        from regente.cli import bash_completion  # noqa: F401  # registers itself
    leave = FastExit()
    ignore_write_errors()
    try:
        regente(standalone_mode=False)
    except RegenteError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        click.echo(printable(without_secrets(str(error))), err=True)
        leave(error.exit_code)
    except click.ClickException as error:
        error.show()
        leave(2)
    except (click.Abort, KeyboardInterrupt):
        leave(130)
    except Stopped as error:
        leave(error.exit_code)
    except SystemExit as error:
        leave(error.code if isinstance(error.code, int) else 0)
    except Exception as error:
        from regente.jobs.exit_status import exit_status_of, say

        status = exit_status_of(error)  # outside of a session, as in `predict`: mostly of the user's own code
        say(status, debug="--debug" in sys.argv)
        leave(status.exit_code)
