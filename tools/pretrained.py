"""Train the pretrained models, each with one command, and put what they learned into the package.

    python -m tools.pretrained train NAME     hours; an interrupted run goes on
    python -m tools.pretrained ship NAME      zoo/weights/NAME.* and the entry of registry.yaml

Runs and data sets are in the folder `runs/pretrained`. The figures in the cards and in
docs/pretrained.md come from `tools/verify_weights.py` alone.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from zoo import registry, run
from zoo.atomic import write_atomic
from zoo.cache import file_sha256

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "runs" / "pretrained"
WEIGHTS = ROOT / "zoo" / "weights"

_SUPER = {"crop": 64, "batch_size": 8, "bias": False, "precision": "bfloat16"}
_SRGAN = _SUPER | {"base_filters": 32, "blocks": 8}
# What the first run makes sharper in a background of zeros, the second takes away.
_AS_FILES = {
    "precision": "float32",
    "steps": 500,
    "pretrain_steps": 500,
    "pretrain_loss": "l1",
    "learning_rate": 5e-4,
    "rate_schedule": "cosine",
    "image_every": 500,
    "validate_every": -1,
}
# Normalised by batch, a discriminator would not see how strong the grain is.
_ADVERSARIAL = _SRGAN | {
    "precision": "float32",
    "steps": 400,
    "pretrain_steps": 0,
    "validate_every": -1,
    "learning_rate": 3e-4,
    "discriminator_filters": 16,
    "spectral_norm": True,
    "lambda_adversarial": 1e-2,
}
_DENOISER = {
    "crop": 128,
    "batch_size": 6,
    "base_filters": 24,
    "levels": 4,
    "skips": "add",
    "equivariant": True,
    "relative": True,
    "loss": "l1",
    "learning_rate": 1e-3,
    "image_every": 1000,
    "checkpoint_every": 500,
}
_SCANS = {
    "steps": 4000,
    "learning_rate": 6e-4,
    "rate_schedule": "cosine",
    "precision": "float32",
    "crop": 160,
    "batch_size": 4,
    "flip_up_down": True,
    "turn": True,
    "validate_every": 500,
    "validate_images": 40,
    "image_every": 1000,
    "checkpoint_every": 250,
}
# Few patients: each is seen at other angles, sizes and gains every time.
_HEADS = {
    "batch_size": 2,
    "crop": 192,
    "base_filters": 20,
    "levels": 4,
    "norm": "instance",
    "output": "image",
    "loss": "l1",
    "learning_rate": 1e-3,
    "rate_schedule": "cosine",
    "rotation": 10.0,
    "zoom": 0.15,
    "gamma": 0.3,
    "bias_field": 0.3,
    "validate_every": -1,
    "image_every": 500,
    "checkpoint_every": 100,
}

_PRIMAL_DUAL = {"iterations": 8, "filters": 16, "batch_size": 2, "image_every": 1000}
# A U-Net of the quick image: a few minutes on two cores.
_AFTER = {
    "steps": 1500,
    "batch_size": 4,
    "crop": 128,
    "base_filters": 24,
    "levels": 4,
    "norm": "none",
    "loss": "l2",
    "learning_rate": 1e-3,
    "rate_schedule": "cosine",
    "image_every": 500,
    "checkpoint_every": 500,
}

# Name: model, data set, and what differs from the model's small preset.
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "automap_mri": ("automap", "mri_recon/varied", {"steps": 4000}),
    "critic_ct_recon": (
        "critic",
        "ct_recon/phantom_fbp",
        {
            "steps": 6000,
            "flip_up_down": True,
            "turn": True,
            "image_every": 6000,
            "checkpoint_every": 500,
            "validate_every": 1000,
            "validate_images": 10,
        },
    ),
    "cyclegan_cbct_ct": (
        "cyclegan",
        "cbct_ct/phantom_scatter",
        {
            "steps": 3000,
            "precision": "bfloat16",
            "crop": 112,
            "flip": True,
            "output": "residual",
            "norm": "none",
            "lambda_cycle": 5.0,
            "lambda_identity": 1.0,
        },
    ),
    "dcgan_lung_nodule": (
        "dcgan",
        "lung_nodule/phantom",
        {
            "steps": 6000,
            "batch_size": 16,
            "learning_rate": 5e-4,
            "rate_schedule": "cosine",
            "adversarial": "bce",
            "r1": 0.5,
            "diff_augment": True,
            "refine": 1,
            "noise_inputs": 8,
            "ema": 0.998,
        },
    ),
    # Last noise that is up to fifty times as strong as the target's own.
    "encoder_decoder_ldct": (
        "encoder_decoder",
        "ldct/varied_scans",
        {"init": "runs/pretrained/encoder_decoder_ldct_second"} | _SCANS,
    ),
    # How much of the noise is the target's own, it learns from doses as they are.
    "encoder_decoder_ldct_second": (
        "encoder_decoder",
        "ldct/varied_doses",
        {
            "init": "runs/pretrained/encoder_decoder_ldct_first",
            "steps": 12500,
            "learning_rate": 5e-4,
            "image_every": 1000,
            "checkpoint_every": 500,
        },
    ),
    "encoder_decoder_ldct_first": (
        "encoder_decoder",
        "ldct/varied",
        {"steps": 12000, "precision": "bfloat16"} | _DENOISER,
    ),
    # Few operations, most at full resolution: narrower levels of two convolutions lose more.
    "encoder_decoder_ldct_fast": (
        "encoder_decoder",
        "ldct/varied_scans",
        {
            "steps": 24000,
            "learning_rate": 2e-3,
            "rate_schedule": "cosine",
            "crop": 128,
            "batch_size": 8,
            "flip_up_down": True,
            "turn": True,
            "base_filters": 16,
            "levels": 5,
            "growth": 1.2,
            "convolutions": 1,
            "skips": "add",
            "equivariant": True,
            "relative": True,
            "loss": "l1",
            "validate_every": -1,
            "image_every": 6000,
            "checkpoint_every": 500,
        },
    ),
    # Stands beside learned_primal_dual_ct_recon, and is not shipped.
    "encoder_decoder_ct_recon": ("encoder_decoder", "ct_recon/phantom_many_fbp", _AFTER),
    # Stands beside varnet_mri_recon, and is not shipped.
    "encoder_decoder_mri_recon": (
        "encoder_decoder",
        "mri_recon/phantom_128_many_filled",
        _AFTER | {"crop": 0},
    ),
    "encoder_decoder_t1_t2": ("encoder_decoder", "mri_contrast/heads", _HEADS | {"steps": 1400}),
    "encoder_decoder_t1_t2_flair": (
        "encoder_decoder",
        "mri_contrast/heads_t1_t2_flair",
        _HEADS | {"steps": 1400},
    ),
    "pix2pix_ldct": (
        "pix2pix",
        "ldct/varied_scans",
        {
            "init": "runs/pretrained/pix2pix_ldct_first",
            "steps": 4000,
            "learning_rate": 5e-4,
            "discriminator_rate": 1e-3,
            "rate_schedule": "cosine",
            "crop": 160,
            "flip_up_down": True,
            "turn": True,
            "validate_every": -1,
            "image_every": 1000,
            "checkpoint_every": 250,
        },
    ),
    "pix2pix_ldct_first": (
        "pix2pix",
        "ldct/varied",
        {
            "steps": 10000,
            "precision": "bfloat16",
            "base_filters": 24,
            "levels": 4,
            "equivariant": True,
            "relative": True,
            "lambda_l1": 10.0,
            "lambda_gan": 1.0,
            "discriminator_filters": 16,
            "discriminator_layers": 2,
            "discriminator_norm": "none",
            "spectral_norm": True,
            "image_every": 1000,
            "checkpoint_every": 500,
        },
    ),
    "learned_primal_dual_ct_recon": (
        "learned_primal_dual",
        "ct_recon/phantom_many",
        {"init": "runs/pretrained/learned_primal_dual_ct_recon_first"}
        | _PRIMAL_DUAL
        | {"steps": 2400, "learning_rate": 7e-4, "validate_images": 20},
    ),
    "learned_primal_dual_ct_recon_first": (
        "learned_primal_dual",
        "ct_recon/phantom",
        _PRIMAL_DUAL | {"steps": 5000},
    ),
    "srcnn_mri_x2": (
        "srcnn",
        "sr/varied_mr",
        _SUPER | {"steps": 5000, "learning_rate": 3e-4, "middle": 3, "batch_size": 16},
    ),
    "srresnet_mri_x2": (
        "srgan",
        "sr/varied_mr_scans",
        {"init": "runs/pretrained/srresnet_mri_x2_first"} | _SRGAN | _AS_FILES,
    ),
    "srresnet_mri_x2_first": (
        "srgan",
        "sr/varied_mr",
        _SRGAN | {"steps": 7000, "pretrain_steps": 7000, "image_every": 1000},
    ),
    "srresnet_mri_x4": (
        "srgan",
        "sr/varied_mr_scans",
        {"init": "runs/pretrained/srresnet_mri_x4_first"}
        | _SRGAN
        | _AS_FILES
        | {"scale": 4, "crop": 96},
    ),
    "srresnet_mri_x4_first": (
        "srgan",
        "sr/varied_mr",
        _SRGAN | {"steps": 4500, "pretrain_steps": 4500, "scale": 4, "crop": 96},
    ),
    "srgan_mri_x2": (
        "srgan",
        "sr/varied_mr_scans",
        # With 1e-2 even regions got lines.
        {"init": "srresnet_mri_x2"} | _ADVERSARIAL | {"lambda_adversarial": 4e-3},
    ),
    "srgan_mri_x4": (
        "srgan",
        "sr/varied_mr_scans",
        {"init": "srresnet_mri_x4"} | _ADVERSARIAL | {"scale": 4, "crop": 96},
    ),
    # The networks swing about what they should give; their average, at the end, does not.
    "unit_t1_t2": (
        "unit",
        "mri_contrast/mni152_128",
        {
            "init": "runs/pretrained/unit_t1_t2_first",
            "steps": 2000,
            "halve_every": 800,
            "learning_rate": 1e-4,
            "ema": 0.998,
        },
    ),
    "unit_t1_t2_first": (
        "unit",
        "mri_contrast/mni152_128",
        {
            "steps": 8000,
            "halve_every": 2000,
            "precision": "bfloat16",
            "crop": 0,
            "batch_size": 1,
            "learning_rate": 4e-4,
            # With 3 layers at 2 scales they stayed at chance.
            "discriminator_layers": 4,
            "discriminator_scales": 3,
            "discriminator_rate": 2e-3,
            "spectral_norm": True,
            "lambda_kl": 1e-3,
            "lambda_cycle_kl": 1e-3,
            "image_every": 500,
            "checkpoint_every": 500,
        },
    ),
    "varnet_mri_recon": (
        "varnet",
        "mri_recon/phantom_128_many",
        {
            "init": "runs/pretrained/varnet_mri_recon_first",
            "steps": 1200,
            "learning_rate": 7e-4,
            "cascades": 6,
            "image_every": 800,
        },
    ),
    "varnet_mri_recon_first": (
        "varnet",
        "mri_recon/phantom_128",
        {"steps": 1600, "cascades": 6, "image_every": 800},
    ),
    "pggan_mammo": (
        "pggan",
        "mammo/phantom_128",
        {
            "resolution": 128,
            "steps": 30625,
            "latent": 128,
            "fmap_base": 1024,
            "fmap_max": 128,
            "fade_images": 30000,
            "stable_images": 30000,
            "images": 490000,
            "precision": "bfloat16",
            "adversarial": "bce",
            "r1": 1.0,
            "ema": 0.999,
            "image_every": 500,
            "checkpoint_every": 500,
        },
    ),
}

# A share of the weights of the run that another began from: fine-tuning on hard cases had made them
# worse on easy ones (Wortsman et al. 2022, arXiv:2109.01903).
BLENDS = {"encoder_decoder_ldct": 0.25, "pix2pix_ldct": 0.5}


def command(name: str) -> list[str]:
    """The arguments of `cli.py` that train `name`."""
    model, dataset, options = RUNS[name]
    flags = [f"--model={model}", f"--dataset={dataset}", "--preset=small"]
    init = [f"--init={options['init']}"] if "init" in options else []
    fields = [f"--set={k}={v}" for k, v in options.items() if k != "init"]
    return [*flags, *init, *fields, "train"]


def train(name: str) -> None:
    """Run the command of `name`."""
    folders = [f"--data_dir={FOLDER / 'data'}", f"--workdir={FOLDER / name}"]
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *command(name), *folders], check=True)


def earlier_runs(name: str) -> list[str]:
    """The names of the runs of `RUNS` that `name` goes on from, the first one first."""
    init = Path(RUNS[name][2].get("init", ""))
    if init.parent != Path("runs", "pretrained"):
        return []
    return [*earlier_runs(init.name), init.name]


def keep_record(name: str, file: str) -> dict[str, Any]:
    """Write a finished run's record, with its command, into the package, and return it as it was.

    Raises:
        ValueError: for a run that is not finished, and as `zoo.run.read`.
    """
    record = run.read(FOLDER / name)
    if record["state"] != "done":
        raise ValueError(f"{FOLDER / name}: expected a finished run. Received: {record['state']}")
    kept = {key: value for key, value in record.items() if key not in ("metrics", "workdir")}
    kept["command"] = "python cli.py " + " ".join(command(name))
    if name in BLENDS:
        kept["share_of_initial_weights"] = BLENDS[name]
    (WEIGHTS / file).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return record


def ship(name: str) -> None:
    """Copy a finished run's weights, record and learning curves, and write its registry entry.

    Raises:
        ValueError: for a run that is not finished.
    """
    workdir = FOLDER / name
    for earlier in earlier_runs(name):
        keep_record(earlier, f"{name}.{earlier.rpartition('_')[2]}.run.json")
    record = keep_record(name, f"{name}.run.json")
    weights = WEIGHTS / f"{name}.weights.h5"
    shutil.copy(run.stored(workdir)["weights"], weights)
    if name in BLENDS:
        blend(weights, run.stored(FOLDER / earlier_runs(name)[-1])["weights"], BLENDS[name])
    curves(workdir, WEIGHTS / f"{name}.curves.png")
    model_class = registry.model_class(record["model"])
    paper = model_class.recipe_class.preset("paper").to_dict()
    # What the machine of the training was fast at is not the user's, nor is who taught it.
    changed = record["recipe"] | {"precision": "auto"}
    if "teacher" in changed:
        changed["teacher"] = ""
    overrides = {k: v for k, v in changed.items() if paper[k] != v}
    entry = registry.index()["pretrained"].get(name, {})
    fields = {
        "model": record["model"],
        "dataset": record["dataset"],
        "overrides": overrides,
        "source": record["source"],
        "target": record["target"],
        "weights": f"weights/{name}.weights.h5",
        "sha256": file_sha256(weights),
        "licence": "Apache-2.0",
    }
    prose = yaml.safe_load((ROOT / "tools" / "cards.yaml").read_text(encoding="utf-8"))[name]
    guard = {"trained_on": prose["trained_on"]} if "trained_on" in prose else {}
    summary = " ".join(prose["job"].rstrip(".").split())
    write_entry(name, fields | guard | {"metrics": entry.get("metrics", {}), "summary": summary})


def blend(weights: Path, others: Path, share: float) -> None:
    """Mix a share of other weights of the same network into a file of weights."""
    import h5py

    def mix(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape:
            item[...] = (1 - share) * item[...] + share * other[name][...]

    with h5py.File(weights, "r+") as file, h5py.File(others) as other:
        file.visititems(mix)


def write_entry(name: str, fields: dict[str, Any]) -> None:
    """Put an entry into the section `pretrained` of registry.yaml, in alphabetical order."""
    path = ROOT / "registry.yaml"
    head, mark, section = path.read_text(encoding="utf-8").partition("\npretrained:\n")
    entries = yaml.safe_load(section) or {}
    own = {k: v for k, v in fields.items() if k not in ("name", "owner", "folder")}
    entries[name] = own
    blocks = []
    for key in sorted(entries):
        text = yaml.safe_dump(
            {key: entries[key]}, sort_keys=False, default_flow_style=None, width=96
        )
        blocks.append("".join(f"  {line}\n" for line in text.splitlines()))
    write_atomic(path, (head + mark + "\n".join(blocks)).encode())


def curves(workdir: Path, picture: Path) -> None:
    """Draw the losses and the validation figures that a run wrote for TensorBoard."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    series = {}
    for tag in events.Tags()["tensors"]:
        points = [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
        if points and points[0][1].ndim == 0 and "second" not in tag and "learning" not in tag:
            series[tag] = points
    figure, axes = plt.subplots(
        1, len(series), figsize=(3.2 * len(series), 2.4), squeeze=False, layout="constrained"
    )
    for axis, (tag, points) in zip(axes[0], sorted(series.items()), strict=True):
        axis.plot(*zip(*points, strict=True), linewidth=0.8)
        axis.set_title(tag, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_xlabel("step", fontsize=7)
    figure.savefig(picture, dpi=80, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("train", "ship") or set(sys.argv[2:]) - set(RUNS):
        sys.exit(f"{__doc__}\nNames: {', '.join(RUNS)}")
    for each in sys.argv[2:]:
        {"train": train, "ship": ship}[sys.argv[1]](each)
