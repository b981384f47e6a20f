"""A critic as prior of `reconstruct`, beside the same descent without it and total variation."""

from typing import Any

import zoo
from tools.judges.result import Result
from tools.judges.unrolled import (
    best_weight,
    compared,
    least_and_most,
    quality,
    slices,
    total_variation,
)
from zoo.reconstruction import measured
from zoo.reconstruction.learned import quick_image
from zoo.translator import Translator

NAMES = {
    "quick": "filtered back-projection",
    "without": "the same descent without it",
    "tv": "total variation",
    "model": "model",
}


def critic(model: Translator, dataset: str, lam: float, over_without: float) -> Result:
    """PSNR and SSIM on a slice of each test patient, of sinograms whose noise is known.

    Args:
        model: a `critic` of quick images.
        dataset: of the sinograms.
        lam: the weight of total variation to look from for the best one.
        over_without: dB by which the PSNR must be above that of the descent without the critic.
    """
    unit, window = model.target.unit, model.target.window
    lam, silent = best_weight(dataset, lam, unit, window), silenced(model)
    rows, pictures = [], []
    for each in slices(dataset, "test"):
        y = each.operator.checked("measured", each.measured)
        quick = quick_image(model, each.operator, y).numpy()
        images = {"quick": measured.in_unit(quick, unit)[..., None]}
        for key, prior in (("without", silent), ("model", model)):
            found, _ = zoo.reconstruct(
                each.measured, each.operator, "adversarial", critic=prior, sigma=each.sigma
            )
            images[key] = measured.in_unit(found, unit)[..., None]
        images["tv"] = total_variation(each, lam, unit)
        row = quality(each, images, window)
        rows.append(row)
        shown = {name: images[key][..., 0] for key, name in NAMES.items()}
        pictures.append((row, shown | {"reference": each.target[..., 0]}))
    figures, table = compared(rows, NAMES)
    above = figures["psnr_over_without_db"][0]
    checks = {
        f"PSNR at least {over_without} dB above {NAMES['without']}": above >= over_without,
        "PSNR above that of total variation": figures["psnr_over_tv_db"][0] > 0,
    }
    chosen = least_and_most(pictures, unit, window)
    judged = f"{len(rows)} slices of as many simulated patients, test split of {dataset}"
    return Result(judged, figures, checks, table, chosen)


def silenced(model: Translator) -> Any:
    """The same critic, that finds all images alike."""
    twin: Any = type(model).from_config(model.get_config())
    twin.network.set_weights(model.network.get_weights())
    last = twin.critic.layers[-1]
    last.set_weights([0 * values for values in last.get_weights()])
    return twin
