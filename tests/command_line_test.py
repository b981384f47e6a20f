"""The command line as a user runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dicom_files
import zoo
from stand_in import Model
from zoo import command_line
from zoo.commands import asked

ROOT = Path(__file__).parent.parent


def cli(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    # As a user has it: the tests' own setting would hide or show TensorFlow's notes.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_help_is_short_and_leads_with_examples(capsys):
    assert command_line.main(["zoo", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.index("Examples") < text.index("Commands")
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) <= 100
    used = {flag for flags in command_line.USED.values() for flag in flags}
    assert used | {"help", "version"} == set(command_line.FLAGS)
    for name in command_line._COMMANDS:
        assert f"\n  {name} " in text
        assert command_line.main(["zoo", name, "--help"]) == 0
        own = capsys.readouterr().out
        assert own.startswith(f"{name}: ") and max(map(len, own.splitlines())) <= 100
        told = set(re.findall(r"^  --(\w+)", own, re.MULTILINE))
        assert told == set(command_line.USED[name])
    assert command_line.main(["zoo"]) == 2
    capsys.readouterr()
    assert command_line.main(["zoo", "--version"]) == 0
    assert capsys.readouterr().out == f"zoo-medical {zoo.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lsit"], "Did you mean list"),
        (["--model=pix2pxi", "--dataset=ldct", "train"], "Did you mean pix2pix"),
        (["--model=pix2pix", "--dataset=ldtc", "train"], "Did you mean ldct"),
        (["--model=pix2pix", "train"], "needs --dataset"),
        (["--model=pix2pix", "--dataset=ldct", "--set", "step=1", "train"], "step=1"),
        (["--model=pix2pix", "--dataset=ldct", "--set=steps=x", "train"], "steps: expected int"),
        (["--steps=0", "--model=pix2pix", "--dataset=ldct", "train"], "steps"),
        (["--preset=large", "--model=pix2pix", "--dataset=ldct", "train"], "preset"),
        (["--bogus", "list"], "bogus"),
        (["--model=pix2pix", "--input=a", "--output=b", "predict"], "without weights"),
        (["train", "evaluate"], "expected one command"),
        (["predict", "--model=pix2pix"], "needs --input, --output"),
        (["generate", "--model=pggan_mammo", "--output=a", "--limit=3"], "Received: --limit"),
        (["predict", "--model=pix2pix_ldct", "--input=a", "--output=b", "--fetch"], "--fetch"),
        (["list", "--task=denoise"], "Did you mean denoising"),
        (["list", "--modality=ct"], "There are: CT, DX"),
        (["evaluate", "--model=pix2pix_ldct", "--split=tset"], "validation or test"),
        (["export", "--model=srcnn_mri_x2", "--output=a", "--int8_loss=1"], "expected --int8="),
        (["describe"], "needs a name"),
        (["describe", "pix2pix", "--dataset=ldct"], "Received: pix2pix and ldct"),
        (
            ["--model=pix2pix", "--dataset=ldct", "--set", "lerning_rate=1", "train"],
            "learning_rate?",
        ),
        (["--model=pix2pix", "--dataset=ldct", "--set", "shift=-1", "train"], "shift: expected 0 "),
    ],
)
def test_wrong_usage_is_said_and_exits_with_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["zoo", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_exits_with_1(capsys, tmp_path):
    arguments = ["--dataset=folder", f"--input={tmp_path}/gone", "prepare"]
    assert command_line.main(["zoo", *arguments, f"--data_dir={tmp_path}"]) == 1
    assert "gone" in capsys.readouterr().err


def test_list_and_describe(capsys):
    assert command_line.main(["zoo", "list", "--modality=MG"]) == 0
    text = capsys.readouterr().out
    assert "pggan" in text
    assert "ldct" not in text
    assert command_line.main(["zoo", "list"]) == 0
    assert "encoder_decoder_ldct Low" in capsys.readouterr().out
    assert command_line.main(["zoo", "--json", "list"]) == 0
    assert "pix2pix" in json.loads(capsys.readouterr().out)["models"]
    assert command_line.main(["zoo", "describe", "--model=pix2pix"]) == 0
    text = capsys.readouterr().out
    assert "lambda_l1" in text
    assert "arXiv:1611.07004" in text
    assert command_line.main(["zoo", "describe", "ldct"]) == 0
    assert "phantom_tiny" in capsys.readouterr().out


def test_a_run_says_what_it_will_do(tmp_path):
    """A process of its own; flags before and after the command."""
    tiny = ["--set=crop=32", "--set=levels=3", "--set=base_filters=4", "--steps=3"]
    model = ["--model=encoder_decoder", "--dataset=ldct/phantom_tiny"]
    done = cli(*model, f"--workdir={tmp_path}/run", f"--data_dir={tmp_path}", "train", *tiny)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("No accelerator here: the small recipe is used")
    assert "encoder_decoder (small recipe) on ldct/phantom_tiny: 3 steps over" in done.stdout
    assert "This takes about" in done.stdout
    # Without a terminal no bar, and a line at each tenth.
    assert "step 1/3 (train): loss=" in done.stdout
    assert "step 3/3 (train): loss=" in done.stdout
    assert "%|" not in done.stderr and "loss=" not in done.stderr
    for noise in ("WARNING", "oneDNN", "cuda"):
        assert noise not in done.stderr


def test_fine_tuning_takes_recipe_and_window_of_its_weights(tmp_path, monkeypatch, capsys):
    """`--init=NAME` alone trains the pretrained network on a folder, in the window it knows."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    for part in ("trainA", "trainB", "testA", "testB"):
        dicom_files.series(tmp_path / "files" / part, 2)
    (tmp_path / "files/trainA/broken.png").write_bytes(b"no image")
    command = [
        "--init=pix2pix_ldct",
        "--dataset=folder",
        f"--input={tmp_path / 'files'}",
        f"--workdir={tmp_path / 'run'}",
        "--steps=1",
        "--batch_size=1",
        "--set=crop=32",
        "--set=learning_rate=1e-9",
        "--set=allow_shared_patients=true",
        "train",
    ]
    assert command_line.main(["zoo", *command]) == 0
    said = capsys.readouterr()
    assert "small recipe" not in said.out  # that of the weights is used
    assert "1 could not be read and were left out" in said.err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    known = zoo.lookup("pix2pix_ldct")
    assert record["model"] == "pix2pix" and record["recipe"]["steps"] == 1
    assert record["recipe"]["base_filters"] == known.recipe.base_filters
    assert record["source"]["window"] == record["target"]["window"] == [-1024.0, 1500.0]
    evaluation = [f"--model={tmp_path / 'run'}", f"--input={tmp_path / 'files'}", "evaluate"]
    assert command_line.main(["zoo", *evaluation]) == 0
    assert (
        "note: Patients are in several splits, so that results flatter." in capsys.readouterr().err
    )
    # One step at a tiny rate leaves what it began from.
    image = np.linspace(-1000, 300, 40 * 40, dtype="float32").reshape(40, 40)
    tuned, before = (zoo.load(str(n)) for n in (tmp_path / "run", "pix2pix_ldct"))
    np.testing.assert_allclose(tuned.translate(image), before.translate(image), atol=0.05)


def test_fine_tuning_refuses_another_unit(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    for part in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / "files" / part).mkdir(parents=True)
        np.save(tmp_path / "files" / part / f"{part[:-1]}.npy", np.ones([40, 40], "float32"))
    command = [
        "--init=pix2pix_ldct",
        "--dataset=folder",
        f"--input={tmp_path / 'files'}",
        f"--workdir={tmp_path / 'run'}",
        "train",
    ]
    assert command_line.main(["zoo", *command]) == 1
    assert "its weights take HU" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_predict_says_what_it_did(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(asked, "trained", lambda: None)
    monkeypatch.setattr(asked, "built", lambda entry: Model())
    folder = dicom_files.series(tmp_path / "in", 3)
    options = [f"--input={folder}", "predict"]
    assert command_line.main(["zoo", f"--output={tmp_path}/a", *options]) == 0
    said = capsys.readouterr()
    counts = "0 skipped, 0 ignored, 0 warnings"
    assert said.out == f"Translated 1 series, 3 slices, into {tmp_path}/a: {counts}\n"
    assert said.err == ""  # no terminal, no bar
    np.save(folder / "one.npy", np.zeros((4, 4)))
    # a name that is no UTF-8, and one of two lines
    for name in (b"\xff.npy", b"a\nb.npy"):
        (folder / os.fsdecode(name)).write_bytes(b"nothing")
    (folder / "plan.dcm").write_bytes(dicom_files.bundled("rtstruct").read_bytes())
    output = tmp_path / os.fsdecode(b"out\xff")
    assert command_line.main(["zoo", f"--output={output}", *options]) == 1
    said = capsys.readouterr()
    counts = "2 skipped, 1 ignored, 0 warnings"
    assert said.out == (
        f"Translated 1 series and 1 file, 4 slices, into {tmp_path}/out\\udcff: {counts}\n"
    )
    assert "ignored: 1 file: not an image (RT Structure Set Storage)\n" in said.err
    assert len(said.err.splitlines()) == 3
    assert "/\\udcff.npy: " in said.err
    assert "/a\\nb.npy: " in said.err


def test_a_reader_that_has_enough_and_a_terminal_without_letters_are_quiet():
    command = [sys.executable, str(ROOT / "cli.py")]
    reader = subprocess.Popen([*command, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    reader.stdout.close()  # as `head` does
    assert reader.stderr.read() == b""
    reader.stderr.close()
    assert reader.wait() == 1
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*command, "prepare", "--help"], capture_output=True, env=environment)
    assert done.returncode == 0 and b"--runner=DirectRunner \\u2026" in done.stdout


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("a\nb"), MemoryError()])
def test_whatever_goes_wrong_is_one_line(error, monkeypatch, capsys):
    def broken() -> int:
        raise error

    monkeypatch.setitem(command_line._COMMANDS, "list", broken)
    monkeypatch.delenv("ZOO_DEBUG", raising=False)
    assert command_line.main(["zoo", "list"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {type(error).__name__}: ") and "ZOO_DEBUG=1" in line
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(type(error)):
        command_line.main(["zoo", "list"])
