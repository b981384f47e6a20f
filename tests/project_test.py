"""What holds for the project as a whole: the registry, its places, the command line's speed."""

import importlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zoo import registry

ROOT = Path(__file__).resolve().parent.parent
OWN = {
    section: {name: row for name, row in rows.items() if row["owner"] == "zoo"}
    for section, rows in registry.index().items()
}


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", OWN["models"])
def test_a_models_module_registers_its_name(name):
    cls = registry.model_class(name)
    assert cls.registered_name == name
    assert cls.__module__ == OWN["models"][name]["module"]
    assert cls.data == OWN["models"][name]["data"]
    for preset in ("paper", "good", "small"):
        recipe = cls.recipe_class.preset(preset)
        assert type(recipe).from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("name", OWN["datasets"])
def test_a_data_set_has_its_builder_and_configs(name):
    row = OWN["datasets"][name]
    assert row["module"] == f"zoo_datasets.{name}"
    folder = ROOT / "zoo_datasets" / name
    for file in ("README.md", "TAGS.txt", "CITATIONS.bib"):
        assert (folder / file).is_file()
    builder = importlib.import_module(f"{row['module']}.{name}_dataset_builder").Builder
    assert builder.name == name
    assert [config.name for config in builder.BUILDER_CONFIGS] == row["configs"]


def test_every_model_and_data_set_in_the_tree_is_in_the_registry():
    modules = {f"zoo.models.{path.stem}" for path in (ROOT / "zoo" / "models").glob("[a-z]*.py")}
    assert modules == {row["module"] for row in OWN["models"].values()}
    folders = {path.parent.name for path in ROOT.glob("zoo_datasets/*/*_dataset_builder.py")}
    assert folders == set(OWN["datasets"])


def test_pretrained_weights_ship_with_their_hash():
    from zoo.cache import file_sha256

    for row in OWN["pretrained"].values():
        if "://" not in row["weights"]:
            assert file_sha256(ROOT / "zoo" / row["weights"]) == row["sha256"]


def test_list_answers_at_once_and_without_tensorflow():
    times = []
    for command in ([], ["--json"], []):
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = python(str(ROOT / "cli.py"), "list", *command)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: other work on the machine must not fail the test.
        times.append(end.ru_utime - start.ru_utime + end.ru_stime - start.ru_stime)
        assert done.returncode == 0, done.stderr
        for name in [*OWN["models"], *OWN["datasets"]]:
            assert name in done.stdout
        if command:
            json.loads(done.stdout)
    assert min(times) < 0.5, times
    code = """
import sys
from zoo import command_line
assert command_line.main(["cli.py", "list"]) == 0
heavy = {"tensorflow", "keras", "numpy", "tensorflow_datasets"} & set(sys.modules)
assert not heavy, heavy
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def files() -> list[Path]:
    """The project's text files: those that git tracks or would, or all where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    names = done.stdout.split("\0") if done.returncode == 0 else []
    paths = [ROOT / name for name in names if name] or [
        path for path in ROOT.rglob("*") if ".venv" not in path.parts and ".git" not in path.parts
    ]
    texts = {".py", ".md", ".yaml", ".toml", ".txt", ".bib", ".cff", ".sh", ".html", ".json", ""}
    return [path for path in paths if path.is_file() and path.suffix in texts]


def test_no_file_names_a_place_on_somebodys_machine():
    place = re.compile(r"(?<![\w.~}/])/(?:home|root|Users|work|mnt)/\w")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if place.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_kubernetes_objects_in_the_docs_belong_together():
    text = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    (objects,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    service, job = yaml.safe_load_all(objects)
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]


def test_bazels_light_tests_are_there():
    build = (ROOT / "tests" / "BUILD").read_text(encoding="utf-8")
    (light,) = re.findall(r"^LIGHT = \[(.*?)^\]", build, re.DOTALL | re.MULTILINE)
    names = re.findall(r'"(.+?)"', light)
    assert names and all((ROOT / "tests" / name).is_file() for name in names), names
