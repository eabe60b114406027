"""The `ser` command: one function per sub-command, no logic. Heavy imports happen inside, so that --help is quick."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ser_scripts.errors import BadInput, Finding, SerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ser_scripts.runs.plan import Plan
    from ser_scripts.settings import Folders

app = typer.Typer(
    name="ser",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ExperimentFile = Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="An experiment JSON.")]
ExperimentOrFolder = Annotated[
    Path, typer.Argument(metavar="EXPERIMENT", help="An experiment JSON, or its folder under the runs folder.")
]
LowSeed = Annotated[Optional[int], typer.Option("--low-seed", "--low_seed", help="First seed; wins over the file.")]  # noqa: UP045
HighSeed = Annotated[Optional[int], typer.Option("--high-seed", "--high_seed", help="Last seed, included.")]  # noqa: UP045
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="FIELD=VALUE", help="Edit the spec, e.g. split.folds=10 or model.training.epochs=5."),
]


AllowImport = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--allow-import", metavar="MODULE", help="Let augmentations come from this module or file."),
]
AllowRemoteCode = Annotated[
    bool,
    typer.Option("--allow-remote-code", help="Let encoders run Python code that comes with their weights."),
]
INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        from ser_scripts import __version__

        print(f"sertain {__version__}")
        raise typer.Exit


@app.callback()
def version(
    show: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Speech emotion recognition results you can be certain of: speaker-independent, many seeds, the right test."""


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="'experiment' or 'model'.")],
    name: Annotated[str, typer.Argument(help="Its name; the file is experiments/NAME.json or models/NAME.json.")],
    corpus: Annotated[str, typer.Option(help="Corpus of the experiment (see `ser corpora`).")] = "toy",
    model: Annotated[str, typer.Option(help="Model of the experiment (a name under models/).")] = "whisper-tiny-en",
    encoder: Annotated[str, typer.Option(help="Hub id or path of the model's encoder.")] = "openai/whisper-tiny.en",
    out: Annotated[Optional[Path], typer.Option(help="Write here instead.")] = None,  # noqa: UP045
) -> None:
    """Write an experiment or a model JSON to start from."""
    from ser_scripts.runs.templates import write_template

    print(write_template(kind, name, corpus=corpus, model=model, encoder=encoder, out=out))


@app.command()
def check(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Experiment or model JSONs.")],
    low_seed: LowSeed = None,
    high_seed: HighSeed = None,
    overrides: Overrides = None,
    allow_import: AllowImport = None,
    allow_remote_code: AllowRemoteCode = False,
) -> None:
    """Validate specs, read their corpora, draw every split. Estimates the disk; exit code 1 for a refused split."""
    from ser_scripts.runs.check import check_spec

    refused = False
    for spec in specs:
        lines, bad = check_spec(
            spec,
            low_seed=low_seed,
            high_seed=high_seed,
            overrides=overrides or (),
            allow_imports=allow_import or (),
            say=_say,
            allow_remote_code=allow_remote_code,
        )
        print("\n".join(lines))
        refused |= bad
    if refused:
        raise Finding("some splits are refused or leak; see above")


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def translate(
    context: typer.Context,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="CONFIG.yaml", help="A configuration of the two-tier system."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("experiments"),
    config_flag: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", metavar="CONFIG.yaml", help="The same, as its train.py took it."),
    ] = None,
) -> None:
    """Write an older two-tier system's YAML as an experiment. Flags of its train.py may follow."""
    from ser_scripts.specs.two_tier import write_translation

    flags = list(context.args)
    if config_flag is not None:  # then what was taken for the file is the first of the flags
        config, flags = config_flag, [*([str(config)] if config is not None else []), *flags]
    if config is None:
        raise BadInput("ser translate: name the configuration: ser translate CONFIG.yaml")
    files, messages = write_translation(config, out, flags)
    for message in messages:
        _say(message)
    print("\n".join(str(file) for file in files))


@app.command()
def prepare(
    what: Annotated[
        str, typer.Argument(metavar="EXPERIMENT|CORPUS", help="An experiment JSON, or a corpus (`toy` is made).")
    ],
    download: Annotated[bool, typer.Option("--download", help="First get the corpus from its publisher.")] = False,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="With --download: you accept a licence that is not a public one.")
    ] = False,
    archive: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(metavar="FILE", help="With --download: unpack this file instead, with the same checks."),
    ] = None,
) -> None:
    """Read and check corpora, or download them. `ser prepare toy` makes the built-in corpus."""
    from ser_scripts.runs.check import download_corpus, prepare_corpora

    if not download and (accept_licence or archive):
        raise BadInput("ser prepare: --accept-licence and --archive go with --download")
    if download:
        lines = download_corpus(what, accept_licence=accept_licence, archives=archive or (), say=_say)
    else:
        lines = prepare_corpora(what, say=_say)
    for line in lines:
        print(line)


@app.command()
def embed(
    spec: Annotated[
        Path, typer.Argument(metavar="EXPERIMENT|MODEL", help="An experiment JSON, or a model JSON with --corpus.")
    ],
    corpus: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--corpus", metavar="CORPUS", help="With a model JSON: a corpus, a CSV of clips, or a folder."),
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda or mps; found when absent.")] = None,  # noqa: UP045
    overrides: Overrides = None,
    allow_remote_code: AllowRemoteCode = False,
) -> None:
    """Fill the cache of frozen encoders ahead. Goes on where it was stopped; says clips, bytes and seconds."""
    from ser_scripts.runs.embed import embed as fill

    for line in fill(
        spec,
        corpora=corpus or (),
        device=device,
        overrides=overrides or (),
        say=_say,
        allow_remote_code=allow_remote_code,
    ):
        print(line)


@app.command()
def split(
    experiment: ExperimentFile,
    out: Annotated[Path, typer.Option(help="Folder for the split files.")] = Path("splits"),
    low_seed: LowSeed = None,
    high_seed: HighSeed = None,
    overrides: Overrides = None,
) -> None:
    """Write the splits of an experiment without training."""
    from ser_scripts.runs.check import write_splits

    for line in write_splits(
        experiment, out, low_seed=low_seed, high_seed=high_seed, overrides=overrides or (), say=_say
    ):
        print(line)


def _plan(
    experiment: Path,
    where: Folders,
    low_seed: int | None,
    high_seed: int | None,
    overrides: Sequence[str] | None,
    *,
    done: str,
) -> Plan:
    """The runs of an experiment, every split of which can be drawn."""
    from ser_scripts.runs.plan import load_experiment, make_plan

    loaded = load_experiment(experiment, low_seed=low_seed, high_seed=high_seed, overrides=overrides or ())
    for message in loaded.messages:
        _say(message)
    plan = make_plan(loaded, where, progress=_say)
    if plan.refused:
        listing = "\n".join(f"  seed {seed}: {reason}" for seed, reason in plan.refused)
        raise Finding(f"{experiment}: {len(plan.refused)} split(s) are refused, so nothing is {done}:\n{listing}")
    return plan


@app.command()
def train(
    experiment: ExperimentFile,
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda or mps; found when absent.")] = None,  # noqa: UP045
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each in a process of its own.")] = 1,
    loader_workers: Annotated[int, typer.Option(min=0, help="Processes that read clips for each run.")] = 0,
    low_seed: LowSeed = None,
    high_seed: HighSeed = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Move run folders of another spec aside.")] = False,
    allow_import: AllowImport = None,
    allow_remote_code: AllowRemoteCode = False,
) -> None:
    """Train every run of an experiment that is not finished. The same command goes on after a stop."""
    from ser_scripts.runs.ensemble import write_derived
    from ser_scripts.runs.execute import Options, execute_plan, find_device
    from ser_scripts.settings import folders

    where = folders(remote_code=allow_remote_code)
    plan = _plan(experiment, where, low_seed, high_seed, overrides, done="trained")
    spec = plan.experiment.spec
    options = Options(
        device=find_device(device),
        jobs=jobs,
        loader_workers=loader_workers,
        force=force,
        allow_imports=tuple(allow_import or ()),
    )
    if spec.search is not None:
        from ser_scripts.runs.search import search_plan

        plan, _ = search_plan(plan, where, options, _say)
    outcomes = execute_plan(plan, where, options, _say)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        listing = "\n".join(f"  {outcome.folder.as_posix()}: {outcome.message}" for outcome in failed)
        raise Finding(f"{len(failed)} of {len(outcomes)} runs failed:\n{listing}")
    write_derived(where.runs / spec.name, spec.ensembles, spec.prior_correction, _say)
    print(f"{len(outcomes)} run(s) finished under {where.runs / spec.name}; next: ser eval {experiment}")


@app.command()
def tune(
    experiment: ExperimentFile,
    write: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="MODEL.json", help="Write the winner as a model JSON that says who was heard for it."),
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda or mps; found when absent.")] = None,  # noqa: UP045
    jobs: Annotated[int, typer.Option(min=1, help="Studies at a time, each in a process of its own.")] = 1,
    loader_workers: Annotated[int, typer.Option(min=0, help="Processes that read clips for each trial.")] = 0,
    low_seed: LowSeed = None,
    high_seed: HighSeed = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Move studies of another spec aside.")] = False,
    allow_import: AllowImport = None,
    allow_remote_code: AllowRemoteCode = False,
) -> None:
    """Search for settings without training the runs. The same command goes on after a stop; docs/tuning.md."""
    from ser_scripts.runs.execute import Options, find_device
    from ser_scripts.runs.search import tune as run_studies
    from ser_scripts.settings import folders

    where = folders(remote_code=allow_remote_code)
    plan = _plan(experiment, where, low_seed, high_seed, overrides, done="tuned")
    spec = plan.experiment.spec
    options = Options(
        device=find_device(device),
        jobs=jobs,
        loader_workers=loader_workers,
        force=force,
        allow_imports=tuple(allow_import or ()),
    )
    found = run_studies(plan, where, options, write, _say)
    for one in found:
        values = ", ".join(f"{path} {value}" for path, value in one.record["values"].items())
        score = f"{one.record['metric']} {one.record['best_value']:.3f}"
        print(f"{where.runs / spec.name / one.study.name}: {score} with {values}")
    if write is not None:
        print(f"wrote {write}; `ser check EXPERIMENT` says which splits it must not be tested on")


@app.command("eval")
def evaluate(
    experiment: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="EXPERIMENT", help="An experiment JSON, or its folder under the runs folder."),
    ] = None,
    on: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--on", metavar="CORPUS", help="First predict on this corpus too (a name, or a CSV file)."),
    ] = None,
    table: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Evaluate each row of a CSV: model_name, dataset_name, model_path, eval_csv_path, eval_out_path."
        ),
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda or mps; found when absent.")] = None,  # noqa: UP045
    allow_remote_code: AllowRemoteCode = False,
) -> None:
    """Metrics, confusion matrices and a report of finished runs."""
    from ser_scripts.runs.locate import experiment_folder

    if (experiment is None) == (table is None):
        raise BadInput("ser eval: give an experiment, or --table FILE")
    if device and not on and table is None:
        raise BadInput("ser eval: --device is for --on and --table; everything else needs none")
    if allow_remote_code and not on and table is None:
        raise BadInput("ser eval: --allow-remote-code is for --on and --table; everything else runs no encoder")
    if table is not None:
        from ser_scripts.runs.predict import evaluate_table

        for line in evaluate_table(table, device=device, say=_say, allow_remote_code=allow_remote_code):
            print(line)
        return
    assert experiment is not None
    folder = experiment_folder(experiment)
    if on:
        from ser_scripts.runs.predict import predict_on

        for corpus in on:
            base = experiment.parent if experiment.suffix == ".json" else Path("experiments")
            predict_on(folder, corpus, device=device, say=_say, base=base, allow_remote_code=allow_remote_code)
    from ser_eval.evaluate import evaluate_experiment

    summary = evaluate_experiment(folder, progress=_say)
    for line in summary.lines:
        print(line)


@app.command()
def stats(
    experiment: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(
            metavar="EXPERIMENT", help="An experiment JSON or its run folder; every experiment when absent."
        ),
    ] = None,
    csv: Annotated[Optional[Path], typer.Option(help="Any tidy table instead of an experiment.")] = None,  # noqa: UP045
    dv: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --csv: the column of scores; of an experiment uar, ccc or ccc_<dimension>."),
    ] = None,
    within: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="With --csv: factors within blocks, comma separated; with --wide the treatments' columns."),
    ] = None,
    between: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="With --csv: factors between rows or blocks, comma separated."),
    ] = None,
    block: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --csv: the column of blocks (seed, split, subject); without it each row is a unit."),
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="With --csv: a column per treatment, a row per block.")] = False,
    test: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="With --csv: the within factors that say where one trained model is tested "
            "(default: test, test_corpus, condition)."
        ),
    ] = None,
    random: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --csv: random terms of the mixed model, such as '(1|seed) + (1|seed:arch)'."),
    ] = None,
    replicates: Annotated[
        bool,
        typer.Option(
            "--replicates", help="With --csv: average rows of the same block and cell; the mixed model takes each."
        ),
    ] = False,
    margin: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="What counts as no difference, +-, for equivalence (default: 0.01 for scores in [0, 1])."),
    ] = None,
    test_train_ratio: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --csv: clips tested / trained on, as 0.25 or emodb=0.25, for the Nadeau-Bengio test."),
    ] = None,
    cell_sd: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --csv of published cells: the column of SDs, --dv being the means."),
    ] = None,
    cell_n: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --csv of published cells: the column of the number of scores."),
    ] = None,
    predictions: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A table of predictions, a row per clip: what holds for other speakers."),
    ] = None,
    models: Annotated[str, typer.Option(help="With --predictions: columns of answers, comma separated.")] = "",
    truth: Annotated[Optional[str], typer.Option(help="With --predictions: the column of labels.")] = None,  # noqa: UP045
    speaker: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --predictions: the column of speakers."),
    ] = None,
    labels: Annotated[
        str, typer.Option(help="With --predictions: the classes that count, comma separated (default: all of --truth).")
    ] = "",
    group: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --predictions: the column of the speakers' gender or other group (default: gender)."),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for the results of --csv or --predictions."),
    ] = None,
) -> None:
    """Which difference is real. ANOVA, mixed models, paired contrasts, ranks, equivalence; docs/statistics.md."""
    from ser_analysis.experiment import stats_of_experiment
    from ser_analysis.table import names_in, stats_of_csv
    from ser_scripts.runs.locate import all_experiments, experiment_folder

    of_predictions = any((models, truth, speaker, labels, group))
    if predictions is not None:
        from ser_analysis.predictions import stats_of_predictions

        if not models or truth is None or speaker is None:
            raise BadInput("ser stats --predictions TABLE needs --models, --truth and --speaker, columns of the table")
        of_csv = (dv, block, within, between, wide, test, random, replicates, test_train_ratio, cell_sd, cell_n, margin)
        if csv is not None or experiment is not None or any(of_csv):
            raise BadInput(
                "ser stats --predictions TABLE takes no experiment, and of the options only --models, --truth, "
                "--speaker, --labels, --group and --out"
            )
        told = stats_of_predictions(
            predictions,
            models=[name.strip() for name in models.split(",") if name.strip()],
            truth=truth,
            speaker=speaker,
            labels=[name.strip() for name in labels.split(",") if name.strip()],
            group=group,
            out=out,
        )
        print("\n".join(told.lines))
        return
    if of_predictions:
        raise BadInput("ser stats: --models, --truth, --speaker, --labels and --group go with --predictions TABLE")
    if csv is not None:
        if experiment is not None or (dv is None and not wide):
            raise BadInput("ser stats --csv FILE needs --dv COLUMN (or --wide), and takes no experiment")
        factors = [names_in(",".join(given or ())) for given in (within, between, test)]
        result = stats_of_csv(
            csv,
            dv=dv,
            within=factors[0],
            between=factors[1],
            block=block,
            out=out,
            wide=wide,
            test=factors[2],
            margin=margin,
            random=random,
            replicates=replicates,
            test_train_ratio=test_train_ratio,
            cell_sd=cell_sd,
            cell_n=cell_n,
        )
        print("\n".join(result.lines))
        return
    from ser_eval.evaluate import evaluate_experiment

    if any((block, out, within, between, wide, test, random, replicates, test_train_ratio, cell_sd, cell_n)):
        raise BadInput("ser stats: of the options --margin and --dv go with an experiment; the others need --csv FILE")
    failed, cells = [], {}
    for folder in [experiment_folder(experiment)] if experiment else all_experiments():
        try:
            print("\n".join(stats_of_experiment(folder, margin=margin, dv=dv).lines))
        except BadInput as error:
            if experiment:
                raise
            failed.append(f"  {error}")  # the others are done all the same
            continue
        cells[folder.name] = evaluate_experiment(folder).cells  # the report shows the statistics
    if experiment is None and cells:
        from ser_analysis.overview import write_overview
        from ser_scripts.settings import folders

        print("\n".join(write_overview(folders().runs, cells)))
    if failed:
        raise Finding("\n".join(["some experiments have no statistics:", *failed]))


@app.command()
def power(
    pilot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="PILOT", help="An experiment, its run folder, or a results.csv; numbers when absent."),
    ] = None,
    difference: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="The difference to be found: 0.01 is one UAR point."),
    ] = None,
    sd: Annotated[Optional[float], typer.Option(help="SD of the paired differences, without a pilot.")] = None,  # noqa: UP045
    n: Annotated[Optional[int], typer.Option("--n", help="Splits or speakers planned: tells their power.")] = None,  # noqa: UP045
    power: Annotated[float, typer.Option("--power", help="Chance to find the difference if it is there.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Two-sided level of the whole family.")] = 0.05,
    comparisons: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Comparisons in Holm's family (default: the pilot's pairs at one test set; 1 without)."),
    ] = None,
    models: Annotated[str, typer.Option(help="With a pilot: two models, as a,b (default: every pair).")] = "",
    unit: Annotated[
        str, typer.Option(help="seeds (splits of this corpus, T1) or speakers (new people, T2).")
    ] = "seeds",
    overlap: Annotated[
        float, typer.Option(help="Without a pilot: clips tested / trained on, for the Nadeau-Bengio test.")
    ] = 0.0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for table and curve (default with a pilot: its stats/power)."),
    ] = None,
) -> None:
    """How many seeds or speakers a difference needs, from a pilot or from numbers; docs/statistics.md."""
    from ser_analysis.planning import power_of_numbers, power_of_pilot
    from ser_scripts.runs.locate import experiment_folder

    if pilot is None:
        if models:
            raise BadInput("ser power: --models goes with a pilot")
        result = power_of_numbers(
            difference=difference, sd=sd, n=n, power_wanted=power, alpha=alpha, comparisons=comparisons or 1, unit=unit,
            overlap=overlap, out=out,
        )  # fmt: skip
    else:
        if sd is not None or overlap:
            raise BadInput("ser power: --sd and --overlap come from the pilot; leave them out")
        if difference is None:
            raise BadInput("ser power: name the difference to be found with --difference: 0.01 for one point")
        result = power_of_pilot(
            pilot if pilot.is_file() and pilot.suffix == ".csv" else experiment_folder(pilot),
            difference=difference, models=[name.strip() for name in models.split(",") if name.strip()], n=n,
            power_wanted=power, alpha=alpha, comparisons=comparisons, unit=unit, out=out,
        )  # fmt: skip
    print("\n".join(result.lines))


@app.command()
def schemas(
    out: Annotated[Path, typer.Option(help="Folder for the schemas.")] = Path("schemas"),
) -> None:
    """Write the JSON Schemas of experiment and model files. Editors complete and check with them."""
    from ser_scripts.specs.schemas import write_schemas

    for file in write_schemas(out):
        print(file)


@app.command()
def describe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS|CSV|FOLDER|EXPERIMENT",
            help="A corpus (see `ser corpora`), a CSV of clips, a folder with one folder per class, or an experiment.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FOLDER", help="Also write CSV tables, JSON, Markdown and a page of pictures per corpus."),
    ] = None,
) -> None:
    """What is in a corpus. Rates, durations, classes, speakers, levels, silence, bandwidth, copies, votes."""
    from ser_scripts.describe import describe as describe_clips
    from ser_scripts.describe import write_description

    description = describe_clips(what, say=_say)
    print(json.dumps(description.content(), indent=2, ensure_ascii=False) if as_json else description.text())
    if out is not None:
        for file in write_description(description, out):
            _say(str(file))


@app.command()
def corpora(
    name: Annotated[Optional[str], typer.Argument(metavar="CORPUS", help="Tell where to get this one.")] = None,  # noqa: UP045
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
    write_pages: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FOLDER", help="Write the corpora's pages into the project's data folder."),
    ] = None,
) -> None:
    """List the corpora and which are here, or tell how to get one."""
    from ser_scripts.corpora import listing
    from ser_scripts.settings import folders

    if write_pages is not None:
        print("\n".join(listing.write_pages(write_pages)) or "every page is as it should be")
        return
    where = folders()
    if name:
        print(listing.describe_source(name, data=where.data, locations=where.locations))
        return
    rows = listing.list_corpora(where.data, where.locations)
    print(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else listing.format_listing(rows))


@app.command()
def preview(
    experiment: ExperimentFile,
    clip: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="CORPUS/PATH", help="The clip; the first training clip when absent."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder; below the experiment's runs when absent.")] = None,  # noqa: UP045
    model: Annotated[Optional[str], typer.Option(help="One of the experiment's models; the first when absent.")] = None,  # noqa: UP045
    copies: Annotated[int, typer.Option(min=1, help="Draws of each augmentation: the first epochs.")] = 1,
    overrides: Overrides = None,
    allow_import: AllowImport = None,
    allow_remote_code: AllowRemoteCode = False,
) -> None:
    """Write what a model hears of a clip. WAV files, features and a page of pictures, with each augmentation."""
    from ser_scripts.runs.preview import preview as write_preview

    for line in write_preview(
        experiment,
        clip=clip,
        out=out,
        model=model,
        copies=copies,
        overrides=overrides or (),
        allow_imports=allow_import or (),
        say=_say,
        allow_remote_code=allow_remote_code,
    ):
        print(line)


@app.command()
def protocols(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="PROTOCOL", help="Tell everything about this one."),
    ] = None,
) -> None:
    """List the published protocols, or describe one with checksums."""
    from ser_scripts.protocols import describe as describe_protocol
    from ser_scripts.protocols import listing

    print(describe_protocol(name) if name else listing())


@app.command()
def audit(
    split_file: Annotated[
        Path, typer.Argument(metavar="SPLIT.CSV", help="Columns path, class_id, actor, gender, split.")
    ],
    manifest: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A manifest with audio_sha256, to find the same recording on two sides."),
    ] = None,
) -> None:
    """Check anybody's split for leaks. Exit code 1 when there is one."""
    from ser_scripts.leaks import audit as run_audit

    findings = run_audit(split_file, manifest)
    if findings:
        print("\n".join(findings))
        raise Finding(f"{split_file}: {len(findings)} finding(s)")
    print(f"{split_file}: clean")


@app.command()
def preprocess(
    what: Annotated[
        str, typer.Argument(metavar="IN", help="A corpus (see `ser corpora`), a CSV of clips, or a folder of sounds.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the copy; it must not exist, or be empty.")],
    chain: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE|'[...]'", help="The steps: a JSON list, or a file that holds one."),
    ] = None,
    experiment: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="EXPERIMENT", help="Take the steps of this experiment instead."),
    ] = None,
    rate: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="HZ", min=1000, max=192_000, help="Resample to this rate; each clip's own when absent."),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="wav or flac.")] = "wav",
    bits: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="32 (float, wav only) or 16; 32 for wav and 16 for flac when absent."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes; the result does not depend on it.")] = 1,
    allow_dropped: Annotated[
        bool, typer.Option("--allow-dropped", help="Go on without clips that cannot be read or that a step refuses.")
    ] = False,
) -> None:
    """Write a cleaned copy of a corpus or folder. With a CSV of its clips and a record of what was done."""
    from ser_scripts.runs.preprocess_corpus import Options, preprocess_corpus, read_chain

    steps, base = read_chain(chain, experiment)
    options = Options(rate, format_, bits or (32 if format_ == "wav" else 16), jobs, allow_dropped)
    for line in preprocess_corpus(what, out, steps, base, options, say=_say):
        print(line)


@app.command()
def report(
    experiment: ExperimentOrFolder,
    checklist: Annotated[bool, typer.Option("--checklist", help="The checklist for papers, filled in.")] = False,
    out: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Write the checklist here.")] = None,  # noqa: UP045
) -> None:
    """Say where the report of an experiment is, or fill in the checklist for papers from its runs."""
    from ser_eval.checklist import checklist as fill_in
    from ser_eval.run_folder import REPORT, write_text
    from ser_scripts.runs.locate import experiment_folder

    folder = experiment_folder(experiment)
    page = folder / REPORT / "report.html"
    if not checklist:
        if out is not None:
            raise BadInput("ser report: --out goes with --checklist")
        if not page.is_file():
            raise BadInput(f"{page}: no such file; run `ser eval {experiment}` first")
        print(page)
        return
    text = fill_in(folder)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
        print(out)


@app.command()
def reproduce(
    what: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="A finished run's folder, or a bundle.")],
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of a run: cpu, cuda or mps; the recorded one when absent."),
    ] = None,
    tolerance: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="What difference counts as none: 1e-6 for a run, 1e-9 for a bundle."),
    ] = None,
    base: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Of a run: where relative paths in its experiment start.")
    ] = Path("experiments"),
    out: Annotated[Optional[Path], typer.Option(metavar="FOLDER", help="Keep what is made here.")] = None,  # noqa: UP045
    allow_import: AllowImport = None,
    allow_remote_code: AllowRemoteCode = False,
) -> None:
    """Train a run again from its record, or analyse a bundle again, and compare. Exit code 1 when it differs."""
    from ser_scripts.runs.bundle import is_bundle, reproduce_bundle
    from ser_scripts.runs.reproduce import reproduce_run
    from ser_scripts.settings import folders

    if is_bundle(what):
        if device or allow_import:
            raise BadInput("ser reproduce: --device and --allow-import are for a run; of a bundle nothing is trained")
        if allow_remote_code:
            raise BadInput("ser reproduce: --allow-remote-code is for a run; of a bundle nothing is trained")
        from ser_analysis.experiment import stats_of_experiment

        result = reproduce_bundle(what, statistics=stats_of_experiment, tolerance=tolerance, out=out, say=_say)
    else:
        result = reproduce_run(
            what,
            folders(remote_code=allow_remote_code),
            device=device,
            tolerance=tolerance,
            base=base,
            out=out,
            allow_imports=tuple(allow_import or ()),
            say=_say,
        )
    print("\n".join(result.lines()))
    if not result.reproduced:
        raise Finding(f"{what}: not reproduced; see above")
    print("reproduced")


@app.command()
def bundle(
    experiment: ExperimentOrFolder,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="The archive; NAME-bundle.zip when absent."),
    ] = None,
) -> None:
    """Pack an experiment's specs, splits, predictions, metrics and statistics into one archive. Without audio."""
    from ser_scripts.runs.bundle import write_bundle
    from ser_scripts.runs.locate import experiment_folder

    for line in write_bundle(experiment_folder(experiment), out, spec=experiment):
        print(line)


cache_app = typer.Typer(no_args_is_help=True, help="What lies in the cache folder: list, check, make room.")
app.add_typer(cache_app, name="cache")


@cache_app.command("ls")
def cache_ls() -> None:
    """List decoded clips, embeddings and manifests, least recently used first."""
    from ser_scripts.cache import list_cache
    from ser_scripts.settings import folders

    print("\n".join(list_cache(folders().cache)))


@cache_app.command("verify")
def cache_verify(
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is damaged; it is made anew.")] = False,
) -> None:
    """Compare everything with its checksum."""
    from ser_scripts.cache import verify_cache
    from ser_scripts.settings import folders

    for line in verify_cache(folders().cache, delete=delete):
        print(line)


@cache_app.command("prune")
def cache_prune(
    max_size: Annotated[str, typer.Option("--max-size", help="What may stay, e.g. 500M or 20G.")],
) -> None:
    """Remove what was used least recently until the rest is small enough."""
    from ser_scripts.cache import prune_cache
    from ser_scripts.settings import folders

    for line in prune_cache(folders().cache, max_size):
        print(line)


@app.command()
def doctor() -> None:
    """What is installed and found: devices, corpora, encoders."""
    from ser_scripts.runs.doctor import examine

    print("\n".join(examine()))


def main() -> None:
    """Run the command; errors of the user are one clear text, without a traceback."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer has caught the Ctrl-C
            raise KeyboardInterrupt
    except SerError as error:
        _say(f"ser: {error}")
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        _say("\nser: stopped; the same command goes on from the last checkpoint")
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        place = error.filename or "the runs, the cache or temporary files"
        _say(f"ser: no space left on the disk of {place}; free some and run the same command again")
        code = BadInput.exit_code
    except UsageError as error:
        error.show()
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)
