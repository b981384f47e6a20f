"""FDG-PET and CT of the digital patients of `ldct`: the examples of `pet_ct/phantom`.

The CT is the painted slice with a low-dose scan's blur and noise, not projected. The uptake, in
standardised uptake values (SUV, g/ml: activity concentration over injected activity per body
weight), is painted over the same anatomy:

- what is not named below by HU: air, lung, fat, muscle, bone and its marrow;
- blood, liver, spleen, heart muscle, kidneys with urine, gut and stomach, each with a value of the
  patient's own, near those that Wang et al. (2007) measured;
- lesions: nodules of the lungs, metastases of the liver and the spine, lymph nodes; not all of
  those that the CT shows are avid, and hardly any PET lesion lacks a trace in the CT.

The PET then sees the uptake through its resolution (a Gaussian) and with noise whose variance
grows with the signal, correlated as a reconstruction leaves it.
"""

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter

from zoo_datasets.cases import Case, Examples
from zoo_datasets.phantoms import anatomy
from zoo_datasets.phantoms.anatomy import Canvas, Contour, Organ
from zoo_datasets.phantoms.body import Patient
from zoo_datasets.phantoms.ct_scan import FIELD_MM, stored
from zoo_datasets.phantoms.noise import correlated
from zoo_datasets.phantoms.slices import heights
from zoo_datasets.simulated import SimulatedConfig, slices

LABELS = ("background", "lesion")
_FWHM = 2.355  # of a Gaussian, in standard deviations

# SUV of what is painted by its HU: gas, lung, fat, muscle, spongy bone (marrow), dense bone.
_BY_HU = (
    (-1000.0, -950.0, -850.0, -600.0, -130.0, -80.0, 20.0, 70.0, 160.0, 300.0, 700.0),
    (0.10, 0.25, 0.40, 0.45, 0.25, 0.25, 0.65, 0.75, 1.1, 1.4, 0.8),
)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Both protocols: `slices` images of `size` x `size` pixels a patient."""

    size: int = 256
    slices: int = 6
    resolution: tuple[float, float] = (5.5, 7.5)  # FWHM of the PET in mm, by patient
    noise: tuple[float, float] = (0.05, 0.11)  # relative, at SUV 2; by patient
    ct_noise: tuple[float, float] = (8.0, 18.0)  # HU, by patient

    @property
    def spacing(self) -> float:
        """Pixel pitch in mm."""
        return FIELD_MM / self.size


@dataclasses.dataclass
class _Lesion:
    """A body with its SUV and what the CT paints for it, in HU; None: it is there already."""

    organ: Organ
    suv: float
    hu: float | None
    place: str  # "lung", "inside" (within the cavity, beside the lungs) or "bone"


class Tracer:
    """Where the activity is in one patient, an hour after the injection; all from `rng`."""

    def __init__(self, patient: Patient, rng: np.random.Generator):
        self.patient = patient
        self.suv = {
            "blood": rng.normal(1.7, 0.25),
            "liver": rng.normal(2.4, 0.35),
            "spleen": rng.normal(1.9, 0.25),
            "kidney": rng.normal(2.8, 0.5),
            "urine": rng.uniform(6.0, 25.0),
            "gut": rng.uniform(1.0, 3.5),
            "stomach": rng.uniform(1.4, 3.0),
            # The fasting heart burns fat; after a meal, sugar.
            "heart": rng.uniform(1.5, 2.5) if rng.uniform() < 0.5 else rng.uniform(3.0, 9.0),
        }
        self.suv = {name: max(value, 0.5) for name, value in self.suv.items()}
        self.scale = rng.uniform(0.85, 1.15)  # of everything, with weight and blood sugar
        self.hot = rng.uniform(0.4, 1.6, 64)  # of each loop of the gut
        self.lesions = self._draw(rng)

    def _draw(self, rng: np.random.Generator) -> list[_Lesion]:
        patient, lesions = self.patient, []
        ca, cb = patient.cavity_axes
        ill = rng.uniform() < 0.65  # the others have no malignant lesion

        def avid() -> float:
            return float(np.clip(rng.lognormal(1.8, 0.5), 2.5, 25.0))

        def ball(x, y, z, r) -> Organ:
            return Organ(rng, x, y, z, r, r * rng.uniform(0.75, 1.1), r * 1.4, rough=0.08)

        # Those that the CT shows anyway.
        for organ, _ in patient.nodules:
            if ill and rng.uniform() < 0.7:
                lesions.append(_Lesion(organ, avid(), None, "lung"))
        for organ, _ in patient.lesions:
            if ill and rng.uniform() < 0.5:
                lesions.append(_Lesion(organ, avid() + 2.0, None, "inside"))
        for _ in range(rng.poisson(5) if ill else 0):  # lymph nodes along the great vessels
            x, z = rng.normal(0, 24), rng.uniform(10, 320)
            y = rng.uniform(-25, 20) if z < 120 else patient.spine_y - rng.uniform(25, 48)
            lesions.append(
                _Lesion(ball(x, y, z, rng.uniform(4, 12)), avid(), rng.uniform(35, 70), "inside")
            )
        for _ in range(rng.poisson(1.5) if ill else 0):  # metastases of the spine
            x, y = rng.normal(0, 8), patient.spine_y + rng.normal(0, 6)
            value = rng.choice([60.0, 650.0])  # lytic or sclerotic
            lesions.append(
                _Lesion(ball(x, y, rng.uniform(5, 325), rng.uniform(5, 11)), avid(), value, "bone")
            )
        if ill and rng.uniform() < 0.4:  # one large tumour in a lung
            r, side = rng.uniform(12, 26), rng.choice([-1, 1])
            organ = ball(side * 0.5 * ca, rng.uniform(-0.4, 0.4) * cb, rng.uniform(20, 100), r)
            lesions.append(_Lesion(organ, avid() + 2.0, rng.uniform(30, 60), "lung"))
        return lesions

    def slice(self, z: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """HU and SUV, float32 `[size, size]`, and whether a lesion is there, at height z in mm.

        Both are noise-free and sharp.
        """
        # The CT, and what of its cavity is no lung.
        patient = self.patient
        hu = Canvas(patient.size, patient.spacing, patient.fields[0])
        hu.hu = patient.slice(z)
        body, _, cavity = patient.contours(z)
        where, inside = hu.mask(cavity)
        within = np.zeros_like(hu.hu)
        within[where] = inside
        lung = within * np.clip((-350 - gaussian_filter(hu.hu, 2.0 / patient.spacing)) / 150, 0, 1)
        within -= lung
        # Lesions in the CT.
        seen = np.zeros(hu.hu.shape, bool)
        regions = {"lung": None, "inside": within, "bone": None}
        shapes = []
        for lesion in self.lesions:
            if (shape := lesion.organ.at(z)) is not None:
                shapes.append((lesion, shape))
        for lesion, shape in shapes:
            if lesion.hu is not None:
                hu.blob(shape, lesion.hu, (4, 8), regions[lesion.place], edge=2.0)
        # The PET: uptake by tissue, by organ, and of lesions.
        canvas = Canvas(patient.size, patient.spacing, patient.fields[1])
        where, mask = canvas.mask(body)
        canvas.hu = np.zeros_like(hu.hu)
        canvas.hu[where] = mask * np.interp(hu.hu[where], *_BY_HU).astype(np.float32)
        self._organs(canvas, z, within)
        for lesion, shape in shapes:
            region = regions[lesion.place]
            canvas.blob(shape, lesion.suv, (0, 0, 0.06 * lesion.suv), region, edge=2.0)
            where, mask = canvas.mask(shape)
            mask = mask if region is None else mask * region[where]
            seen[where] |= mask > 0.5
        return hu.hu, np.maximum(canvas.hu, 0) * self.scale, seen

    def _organs(self, canvas: Canvas, z: float, within: np.ndarray) -> None:
        """Paint the organs that HU do not tell apart, in the order of `Patient`."""
        patient, suv = self.patient, self.suv
        # Heart and aorta.
        if (heart := patient.heart.at(z)) is not None:
            canvas.blob(heart, suv["blood"], (0, 0.04, 0.05))
            left = Contour(
                heart.x + 0.3 * heart.a,
                heart.y + 0.15 * heart.b,
                0.55 * heart.a,
                0.52 * heart.b,
                heart.tilt,
                heart.harmonics,
            )
            canvas.blob(left, suv["heart"], (0, 0, 0.12 * suv["heart"]), edge=2.0)
            canvas.blob(left.grown(-9.5), suv["blood"], edge=2.0)
        down = np.clip(z / 260, 0, 1)
        aorta = Contour(24 - 18 * down, patient.spine_y - 16 - 16 * down**2, 12, 12)
        canvas.blob(aorta, suv["blood"], (0, 0.04))
        # The gut.
        for i, (loop, *_) in enumerate(patient.loops):
            self._wall(canvas, loop.at(z), suv["gut"] * self.hot[i % 64], within)
        for i, colon in enumerate(patient.colon):
            self._wall(canvas, colon.at(z), suv["gut"] * self.hot[-1 - i], within)
        self._wall(canvas, patient.stomach.at(z), suv["stomach"], within)
        # Solid organs.
        for organ, name in (
            (patient.spleen, "spleen"),
            (patient.left_lobe, "liver"),
            (patient.liver, "liver"),
        ):
            if (shape := organ.at(z)) is not None:
                canvas.blob(shape, suv[name], (0, 0.05, 0.08), within)
        if (shape := patient.gallbladder.at(z)) is not None:
            canvas.blob(shape, 0.6, (), within)
        # Kidneys, with urine in the middle.
        for kidney in patient.kidneys:
            if (shape := kidney.at(z)) is not None:
                canvas.blob(shape, suv["kidney"], (0, 0.2), within)
                side = np.sign(shape.x)
                pelvis = Contour(
                    shape.x - side * shape.a * 0.3, shape.y, shape.a * 0.34, shape.b * 0.3
                )
                canvas.blob(pelvis, suv["urine"], (), within, edge=3.0)

    def _wall(self, canvas, shape, value, within) -> None:
        if shape is not None:
            canvas.blob(shape, value, (0, 0.1 * value, 0.2 * value), within, edge=2.0)
            canvas.blob(shape.grown(-4.0), 0.5 * value, (), within, edge=3.0)


def patient(protocol: Protocol, seed: int, number: int) -> dict[str, np.ndarray]:
    """Patient `number`: "pet" float32 SUV, "ct" int16 HU, "labels" uint8, `[slices, n, n]`.

    Everything follows from (seed, number). Labels are 1 where a lesion takes up the tracer.
    """
    rng = np.random.default_rng([seed, number])
    body = Patient(rng, protocol.size, protocol.spacing)
    tracer = Tracer(body, rng)
    fwhm, noise = rng.uniform(*protocol.resolution), rng.uniform(*protocol.noise)
    ct_noise = rng.uniform(*protocol.ct_noise)
    z = heights(rng, protocol.slices, anatomy.EXTENT)
    images: dict[str, list[np.ndarray]] = {"pet": [], "ct": [], "labels": []}
    for height in z.tolist():
        hu, suv, lesion = tracer.slice(height)
        images["pet"].append(pet(suv, protocol.spacing, fwhm, noise, rng))
        hu = gaussian_filter(hu, 0.6 / protocol.spacing)
        hu += ct_noise * correlated(rng, protocol.size, 0.9 / protocol.spacing)
        images["ct"].append(stored(hu))
        images["labels"].append(lesion.astype(np.uint8))
    return {name: np.stack(stack) for name, stack in images.items()}


def pet(
    suv: np.ndarray, spacing: float, fwhm: float, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """What a scanner makes of an uptake `[n, n]`: float32 SUV, nowhere negative.

    Args:
        suv: the true uptake.
        spacing: pixel pitch in mm.
        fwhm: resolution in mm.
        noise: standard deviation at SUV 2, relative; the variance grows with the signal.
        rng: random generator.
    """
    blurred = gaussian_filter(suv, fwhm / _FWHM / spacing)
    # Few counts also come from where nothing is: randoms and scatter leave 0.02.
    sigma = noise * np.sqrt(2.0 * (blurred + 0.02))
    grain = correlated(rng, len(suv), 0.7 * fwhm / _FWHM / spacing)
    return np.maximum(blurred + sigma * grain, 0).astype(np.float32)


def read(case: Case, config: SimulatedConfig[Protocol]) -> Examples:
    """The slices of a simulated patient."""
    images = patient(config.protocol, config.seed, case.facts["number"])
    labels = dict.fromkeys(("source_label", "target_label"), images["labels"])
    yield from slices(case, {"source": images["pet"], "target": images["ct"]} | labels)
