"""Stand-ins for models, data for them, and an evaluation of both."""

import base64
import functools
import html.parser
import io
import re

import numpy as np
import scipy.ndimage
from PIL import Image

from zoo.domain import Domain
from zoo.evaluation import measure
from zoo.translator import Translator

CT = Domain(modality="CT", unit="HU", window=(-160.0, 240.0))


class Double:
    """What `measure` needs of a model, without a network."""

    source = target = CT
    dimensions, scale, classes, label_names = 2, 1, 0, ()
    baseline = Translator.baseline


class Identity(Double):
    def translate(self, array):
        return array


class Blur(Double):
    """A translator that smooths."""

    def translate(self, array):
        assert array.ndim == 4
        return scipy.ndimage.gaussian_filter(array, (0, 1, 1, 0))


class VolumeBlur(Blur):
    dimensions = 3

    def translate(self, array):
        assert array.ndim == 5
        return scipy.ndimage.gaussian_filter(array, (0, 1, 1, 1, 0))


@functools.cache
def image(*seed):
    """Smooth, float32 `[32, 32, 1]` about 40 HU."""
    smooth = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(32, 32)), 3)
    return (40 + 100 * smooth / smooth.std())[..., None].astype("float32")


def pairs(n, per_patient=3, patient="p"):
    for i in range(n):
        target = image(1, i).copy()
        noise = np.random.default_rng([2, i]).normal(0, 30 + i, target.shape)
        yield {
            "source": (target + noise).astype("float32"),
            "target": target,
            "patient": f"{patient}{i // per_patient}".encode(),  # TFDS gives text as bytes
            "name": f"slice {i}".encode(),
        }


def volumes(n, depth=16, sides=(32, 32)):
    for i in range(n):
        target = np.stack([image(i, k) for k in range(depth)])[:, : sides[0], : sides[1]]
        noise = np.random.default_rng([3, i]).normal(0, 30, target.shape)
        yield {"source": (target + noise).astype("float32"), "target": target, "name": f"v{i}"}


def evaluated(model, examples, folder, *, description="", aligned=True, **options):
    """The results, after the report is written."""
    data = measure.DataSet(
        name="ldct/phantom", version="1.0.0", description=description, aligned=aligned
    )
    results, pictures = measure.measure(model, examples, data, name="toy", **options)
    measure.write(folder, results, pictures)
    return results


class Page(html.parser.HTMLParser):
    """Tags, addresses, embedded images and texts of a page; fails on what it would fetch."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.images, self.texts = [], [], []
        content = path.read_text()
        assert not re.search(r"https?://|@import|url\(", content)
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert tag not in ("script", "link", "iframe")
        for key, value in attributes:
            if key in ("src", "href", "srcset"):
                assert value.startswith("data:image/png;base64,")
                data = base64.b64decode(value.split(",")[1])
                self.images.append(np.asarray(Image.open(io.BytesIO(data))))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)
