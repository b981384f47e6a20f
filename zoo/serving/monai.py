"""`metadata.json` of a MONAI bundle: what goes into a model and comes out, for MONAI's tools.

As https://docs.monai.io/en/latest/mb_specification.html has it; the network is no PyTorch's. What
MONAI has no word for, such as spacings, is in `intensity.json`.
"""

from typing import Any

import numpy as np

_FORMATS = {"HU": "hounsfield", "k-space": "kspace", "class": "segmentation"}


def metadata(contract: dict[str, Any], fields: dict[str, Any], version: int) -> dict[str, Any]:
    """The content of the file, for JSON.

    Args:
        contract: what `intensity.json` says.
        fields: what the model cannot know, see `export`.
        version: the number of the export.
    """
    given, target = contract["input"], contract["target"]
    inputs = {"latents": _latents(given)} if given["name"] == "latents" else {}
    if not inputs:
        sides = [side or "*" for side in given["shape"][1:-1]]
        inputs = {given["name"]: _images(contract["source"], given["shape"][-1], sides)}
    made = _images(target, 1 if "classes" in contract else target["channels"], None)
    made["spatial_shape"] = ["*"] * contract["dimensions"]
    if contract.get("label_names"):
        made["channel_def"] = {str(k): name for k, name in enumerate(contract["label_names"])}
    libraries = contract["libraries"]
    return {
        "version": f"{version}.0.0",
        "monai_version": "n/a",
        "pytorch_version": "n/a",
        "numpy_version": np.__version__,
        "optional_packages_version": {"tensorflow": libraries["tensorflow"]},
        "name": fields["name"],
        "task": fields.get("summary") or contract["model"],
        "description": fields.get("summary") or contract["model"],
        "authors": "not stated",
        "copyright": str(fields.get("licence") or "not stated"),
        "data_source": str(fields.get("dataset") or "not stated"),
        "intended_use": "Research only. Not a medical device: not for diagnosis or treatment.",
        "references": [fields["paper"]] if fields.get("paper") else [],
        "network_data_format": {
            "inputs": inputs,
            "outputs": {contract["output"]["name"]: made},
        },
    }


def _images(domain: dict[str, Any], channels: int, sides: list | None) -> dict[str, Any]:
    """The tensor of images; the last of its axes is that of the channels."""
    names = {"0": "image"}
    if channels > 1 or domain.get("inputs"):
        parts = domain.get("inputs") or [{"name": "image", "channels": channels}]
        each = [[part["name"]] * part["channels"] for part in parts]
        names = {str(number): name for number, name in enumerate(sum(each, []))}
    return {
        "type": "image",
        "format": _FORMATS.get(domain["unit"], "magnitude"),
        "modality": domain["modality"] or "n/a",
        "num_channels": channels,
        "spatial_shape": sides,
        "dtype": "float32",
        "value_range": list(domain["window"]),
        "is_patch_data": False,
        "channel_def": names,
        "channel_axis": "last",
    }


def _latents(given: dict[str, Any]) -> dict[str, Any]:
    """The tensor of a generator's latent vectors."""
    return {
        "type": "tuples",
        "format": "latent",
        "modality": "n/a",
        "num_channels": given["shape"][1],
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": "standard normal"},
    }
