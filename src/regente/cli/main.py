"""The `regente` command. Nothing here imports torch, Lightning or MLflow."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

import click

from regente.cli import cache, inference, resume, sweep, tracking
from regente.errors import ConfigError, Problem, RegenteError, Stopped
from regente.jobs.fast_exit import FastExit
from regente.jobs.streams import forgive, printable

TRAIN = """Train a model: an EXPERIMENT under OVERRIDES.

\b
regente train                              the default experiment, digits_cnn
regente train mnist_cnn                    another one; regente list shows all
regente train optimizer.lr=3e-3            a setting
regente train model=mlp trainer=debug      other parts
regente train -m optimizer.lr=1e-2,1e-3    a sweep: one run for each value
regente train --cfg job                    the composed config, nothing run
regente resume RUN                         go on with a run that was interrupted

Overrides are Hydra's: key=value sets (a key that the class takes needs no +), +key=value adds,
~key removes, group=option chooses. Your own ./conf and ./experiments come before the packaged ones.
"""

CHECK = """Say all that is wrong with an experiment; run nothing.

\b
regente check mnist_cnn trainer.max_epoch=3
regente check -m optimizer.lr=1e-2,1e-3    every job of a sweep, or of a search what can be

Devices and files are looked at when a run starts, not here.
"""


class Commands(click.Group):
    """Says what an unknown command is close to."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            from regente.config.discovery import suggest

            ctx.fail(f"no such command: {args[0]}; {suggest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of their use


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="regente", prog_name="regente")
def regente() -> None:
    """Hydra composes, Lightning plays, MLflow records, Regente conducts.

    \b
    regente train                 train the default experiment
    regente list                  what there is to choose from
    regente ui                    look at the runs
    regente COMMAND --help        more on a command

    \b
    Tab completion, for ~/.bashrc (zsh, fish: their own name in place of bash):
    eval "$(_REGENTE_COMPLETE=bash_source regente)"
    """


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from regente.cli.completion import complete

    return complete(list(ctx.params.get("words") or ()), incomplete)


def request(command: Any) -> Any:
    """The arguments that `train` and `check` share."""
    words = click.argument(
        "words",
        nargs=-1,
        type=click.UNPROCESSED,
        metavar="[EXPERIMENT] [OVERRIDES]...",
        shell_complete=_complete,
    )
    debug = click.option("--debug", is_flag=True, help="Print whole tracebacks.")
    folder = click.option(
        "--config-dir", type=click.Path(path_type=Path), expose_value=False, callback=_add_config_dir,
        help="A folder of configs that comes before all others.",
    )  # fmt: skip
    return words(debug(folder(command)))


def _add_config_dir(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is not None:
        from regente.config.discovery import add_config_dir

        add_config_dir(path)


@regente.command(help=TRAIN, context_settings={"ignore_unknown_options": True})
@request
@click.option("-m", "--multirun", is_flag=True, help="Run every combination of the values given with commas.")
@click.option("--dry-run", is_flag=True, help="With -m: check the jobs and print them; run nothing.")
@click.option("-c", "--cfg", type=click.Choice(["job", "hydra", "all"]), help="Print the composed config.")
@click.option("-p", "--package", help="With --cfg: this part of it, for example model.")
@click.option("--resolve", is_flag=True, help="With --cfg: references replaced by what they point to.")
@click.option(
    "-i", "--info", is_flag=False, flag_value="all", metavar="[TOPIC]",
    help="Hydra's own account: all, config, defaults, defaults-tree, plugins or searchpath.",
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
    from regente.training.request import checked, freeze_job, split

    resume.refuse_in_train(words)
    experiment, overrides = split(words)
    if cfg:
        return show(experiment, overrides, cfg, package, resolve)
    if package or resolve:
        raise ConfigError([Problem("--package, --resolve", "go with --cfg job")])
    if info:
        from regente.config.compose import run_hydra
        from regente.config.discovery import require_experiment

        require_experiment(experiment)
        return run_hydra(experiment, overrides, ["--info", info], lambda _: None)
    rerun = "rerun=true" in overrides
    overrides = [word for word in overrides if word != "rerun=true"]
    if not multirun:
        composed, config = checked(experiment, overrides)
    if multirun or composed.multirun:
        from regente.sweeps.session import sweep

        sys.exit(sweep(experiment, overrides, again=rerun, dry_run=dry_run)[0])
    if dry_run:
        raise ConfigError([Problem("--dry-run", "goes with -m; regente check looks at one run")])
    from regente.jobs.hardware import require
    from regente.training.launch import launch
    from regente.training.ranks.rendezvous import find_job

    require(config["trainer"])
    job = find_job(config["trainer"], lambda: freeze_job(composed, Path("runs") / experiment))
    sys.exit(launch(job, config, alone=True, debug=debug))


@regente.command(help=CHECK, context_settings={"ignore_unknown_options": True})
@request
@click.option("-m", "--multirun", is_flag=True, help="Look at a sweep.")
def check(words: tuple[str, ...], debug: bool, multirun: bool) -> None:
    from regente.training.request import checked, split

    experiment, overrides = split(words)
    found = ""
    if multirun or checked(experiment, overrides)[0].multirun:
        from regente.sweeps.plan import plan
        from regente.sweeps.session import look

        found = f"{look(plan(experiment, overrides))}, "
    click.echo(f"{' '.join([experiment, *overrides])}: {found}nothing wrong")


@regente.command(name="list")
def list_() -> None:
    """List the experiments, and every group with its options."""
    from regente.config.discovery import DEFAULT_EXPERIMENT, experiment_files, groups, header_comment

    click.secho("experiments", bold=True)
    names = experiment_files()
    width = max(map(len, [*names, *(option for options in groups().values() for option in options)])) + 2
    for name, file in names.items():
        mark = " (the default)" if name == DEFAULT_EXPERIMENT else ""
        click.echo(f"  {name:<{width}}{header_comment(file)}{mark}")
    for group, options in groups().items():
        click.secho(group, bold=True)
        for option, file in options.items():
            click.echo(f"  {option:<{width}}{header_comment(file)}")


for command in (
    resume.resume,
    resume.fork,
    *inference.COMMANDS,
    sweep.sweep,
    cache.cache,
    tracking.ui,
    tracking.sync,
):
    regente.add_command(command)


def show(experiment: str, overrides: list[str], what: str, package: str | None, resolve: bool) -> None:
    """Print the composed config, or a part of it."""
    from omegaconf import OmegaConf

    from regente.config.interpolation import to_yaml
    from regente.training.request import checked

    touched = {override.lstrip("+~").split("=")[0].split(".")[0] for override in overrides}
    composed, _ = checked(experiment, overrides, touched)
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
    """Run the command line; errors are a line each on stderr, and an exit code."""
    gc.disable()  # composing and importing make many objects and little garbage; the worker enables it again
    if (cwd := str(Path.cwd())) not in sys.path:
        sys.path.append(cwd)  # the user's own models and data, behind what is installed
    if "_REGENTE_COMPLETE" in os.environ:
        from regente.cli import bash_completion  # noqa: F401  # registers itself
    leave = FastExit()
    forgive()
    try:
        regente(standalone_mode=False)
    except RegenteError as error:
        if "--debug" in sys.argv:
            raise
        click.echo(printable(str(error)), err=True)
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
