"""The guide docs/adding-a-model.md: its model trains, and its module is the one in the package."""

import json
import re
from pathlib import Path
from typing import Any

from ser_eval.run_folder import find_runs
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.families import FAMILIES
from ser_scripts.modeling.families import wav2vec2_conformer as module
from ser_scripts.runs.execute import Options, execute_plan
from ser_scripts.runs.plan import load_experiment, make_plan
from ser_scripts.settings import folders
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import ModelSpec

GUIDE = (Path(__file__).parents[1] / "docs/adding-a-model.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_json_of_the_guide_trains(project: Any, tmp_path: Path) -> None:
    content = json.loads(block("json"))
    file = project(models=["conformer-small"])
    (tmp_path / "conformer-small.json").write_text(json.dumps(content))
    plan = make_plan(load_experiment(file), folders(), progress=lambda text: None)
    (outcome,) = execute_plan(plan, folders(), Options(), lambda text: None)
    assert outcome.status == "finished"
    (run,) = find_runs(tmp_path / "runs" / "mini")
    assert run.record["factors"] == {"architecture": "conformer"}
    assert run.record["epochs_run"] == 2
    assert len(run.predictions()) == 1


def test_the_module_of_the_guide_is_the_one_that_is_used() -> None:
    assert module.__file__ is not None
    assert block("python") == Path(module.__file__).read_text(encoding="utf-8")
    assert FAMILIES["wav2vec2-conformer"] is module.Wav2Vec2ConformerEncoder
    spec = parse(ModelSpec, json.loads(block("json")), source="guide", kind="model")
    assert isinstance(build_encoder(spec.encoder, models=None), module.Wav2Vec2ConformerEncoder)
