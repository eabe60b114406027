"""The statistics on the page: real tables and figures, plain words first, one table over all experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from ser_analysis.experiment import stats_of_experiment
from ser_eval.evaluate import evaluate_experiment
from ser_eval.markdown import to_html
from ser_scripts.cli import app
from ser_scripts.errors import BadInput
from ser_scripts.runs.plan import load_experiment
from tests import fabricated_runs as made


def test_markdown_becomes_tables_lists_and_pictures(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"\x89PNG")
    text = (
        "# Title <b>\n\n**Bold** and `code <x>`, [a link](away.md).\n\n- first\n- second & third\n\n## Tables\n\n"
        "| name | p_value |\n| --- | ---: |\n| a\\|b | < .001 |\n\n## Figures\n\n![one](one.png)\n"
        "![two](../../etc/x.png)\n"
    )
    page = to_html(text, folder=tmp_path)
    assert "<h3>Title &lt;b&gt;</h3>" in page
    assert "<p><b>Bold</b> and <code>code &lt;x&gt;</code>, a link.</p>" in page
    assert "<ul><li>first</li><li>second &amp; third</li></ul>" in page
    assert '<th>name</th><th class="n">p value</th>' in page
    assert '<td>a|b</td><td class="n">&lt; .001</td>' in page
    assert page.index("<details><summary>Tables</summary>") < page.index("<table>") < page.index("</details>")
    assert page.count("<img") == 1
    assert 'src="data:image/png;base64,' in page


def test_a_name_with_markup_stays_a_name(tmp_path: Path) -> None:
    page = to_html("- <script>alert(1)</script> ![x](javascript:a.png)\n", folder=tmp_path)
    assert "<script" not in page
    assert "<img" not in page


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = made.make_experiment(tmp_path_factory.mktemp("runs"))
    evaluate_experiment(folder)
    return folder


def test_the_page_holds_the_statistics_as_html(experiment: Path) -> None:
    stats_of_experiment(experiment)
    evaluate_experiment(experiment)
    page = (experiment / "report/report.html").read_text()
    part = page[page.index('<h2 id="stats">') : page.index('<h2 id="again">')]
    assert part.count('<section class="stats">') == 2  # two test sets with other numbers of classes
    assert "<pre>" not in part
    assert "| ---" not in part
    assert part.index("In plain words") < part.index("What may not be concluded") < part.index("<details>")
    assert part.count("<table>") > 10
    assert part.count("data:image/png") >= 4
    assert part.count('alt="residuals"') == 2
    assert part.count('alt="convergence"') == 2
    assert "Recall per class, worst first" in part


def test_all_experiments_share_one_table(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])
    monkeypatch.setenv("SER_RUNS", str(experiment.parent))
    command: Any = typer.main.get_command(app)
    command.main(["stats"], standalone_mode=False)
    assert "4 rows of 1 experiment(s) in one table" in capsys.readouterr().out
    out = experiment.parent / "all-experiments"
    assert {file.name for file in out.iterdir()} == {
        "table.csv", "table.md", "table.tex", "table.html", "forest.png", "forest.pdf",
    }  # fmt: skip
    table = pd.read_csv(out / "table.csv")
    assert list(zip(table["test_corpus"], table["model"], strict=True)) == [
        ("away", "hubert-a"), ("away", "wavlm-b"), ("home", "hubert-a"), ("home", "wavlm-b"),
    ]  # fmt: skip
    home = table[table["test_corpus"] == "home"].iloc[0]
    results = pd.read_csv(experiment / "results.csv")
    mine = results[(results["model"] == "hubert-a") & (results["test_corpus"] == "home")]["uar"]
    assert home["uar"] == pytest.approx(mine.mean())
    assert home["t1_ci95_low"] <= home["uar"] <= home["t1_ci95_high"]
    assert home["t2_ci95_low"] < home["uar_pooled"] < home["t2_ci95_high"]
    text = (out / "table.md").read_text()
    assert "### away, 3 classes (guessing 0.333)" in text
    before = (out / "table.html").read_bytes()
    command.main(["stats"], standalone_mode=False)  # the folder is no experiment, and a rerun changes nothing
    assert (out / "table.html").read_bytes() == before


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        ('[["compact", "compakt"]]', r"contrasts: no model 'compakt'; there are compact, mfcc-free"),
        ('[["compact", "compact"]]', r"contrasts: 'compact' against itself"),
        ('[["compact", "mfcc-free"], ["mfcc-free", "compact"]]', r"contrasts: compact and mfcc-free stand there twice"),
        ('[["compact"]]', r"contrasts"),
    ],
)
def test_wrong_contrasts_are_refused_before_any_training(tmp_path: Path, contrasts: str, message: str) -> None:
    for name in ("compact", "mfcc-free"):
        (tmp_path / f"{name}.json").write_text(f'{{"name": "{name}", "encoder": {{"model_path_or_name": "a/b"}}}}')
    file = tmp_path / "x.json"
    file.write_text(
        '{"name": "x", "train": ["toy"], "models": ["compact.json", "mfcc-free.json"], '
        f'"split": {{"kind": "speaker_independent"}}, "contrasts": {contrasts}}}'
    )
    with pytest.raises(BadInput, match=message):
        load_experiment(file)
