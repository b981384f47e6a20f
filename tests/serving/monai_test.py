"""The metadata of a MONAI bundle, by the fields that its specification asks for."""

import json

import zoo
from zoo.domain import Domain
from zoo.serving import export, monai

# https://docs.monai.io/en/latest/mb_specification.html
TOP = {
    *("version", "monai_version", "pytorch_version", "numpy_version", "optional_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format"),
}
TENSOR = {
    *("type", "format", "modality", "num_channels", "spatial_shape", "dtype", "value_range"),
    *("is_patch_data", "channel_def"),
}


def metadata(name, **fields):
    model = zoo.load(name, **fields)
    contract = export._contract(model, export.serving_specs(model), {})
    made = monai.metadata(contract, {"name": name, "summary": "A summary.", "paper": "Ours"}, 3)
    assert json.loads(json.dumps(made)) == made
    assert made.keys() >= TOP and made["version"] == "3.0.0"
    data = made["network_data_format"]
    for tensors in data.values():
        for tensor in tensors.values():
            assert tensor.keys() >= TENSOR
            assert list(tensor["channel_def"])[0] == "0"
    return data["inputs"], data["outputs"]["images"]


def test_what_goes_in_and_comes_out():
    inputs, made = metadata("srcnn_mri_x2")
    assert inputs["images"]["modality"] == made["modality"] == "MR"
    assert inputs["images"]["spatial_shape"] == made["spatial_shape"] == ["*", "*"]
    source = Domain(modality="CT", unit="HU", window=(-1000.0, 2000.0))
    inputs, made = metadata("srcnn", source=source, target=source)
    assert inputs["images"]["format"] == "hounsfield"
    assert inputs["images"]["value_range"] == [-1000, 2000]
    inputs, made = metadata("dcgan_lung_nodule")
    assert inputs["latents"]["format"] == "latent" and made["num_channels"] == 1
    inputs, made = metadata("automap_mri")
    assert inputs["images"]["format"] == "kspace" and inputs["images"]["num_channels"] == 2
    assert inputs["images"]["spatial_shape"] == [64, 64]
    assert inputs["images"]["channel_def"] == {"0": "image", "1": "image"}
