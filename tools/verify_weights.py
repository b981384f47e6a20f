"""Measure the shipped pretrained models on images that they have never seen.

    python -m tools.verify_weights                   all; fails where a figure has changed
    python -m tools.verify_weights --write NAME ...  measure, and take the figures as the new ones
    python -m tools.verify_weights --only=membership ...  only whether the training can be told
    python -m tools.verify_weights --only=fewer_bits ...  only what bfloat16 and int8 lose

The figures of a model are in its entry of registry.yaml (`metrics`; `membership`, whether patients
of the training can be told from others; `fewer_bits`, the PSNR lost by bfloat16 and int8). Its card
in zoo/weights, its picture in docs/pictures and its row of docs/pretrained.md are written from them
and nothing else.
What judges denoising and super-resolution are the real scans of `tools/scans.py`, which are fetched
into the folder `verify`; the methods beside the models are those of maintained packages. BM3D takes
minutes, so what it and its like made of an image is kept there too. The U-Nets that stand beside
networks of sinograms and k-space are trained where they are not there, which takes minutes as well.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import zoo
from tools import cards, pretrained
from tools.judges.bits import fewer_bits
from tools.judges.contrasts import contrasts
from tools.judges.critics import critic
from tools.judges.generation import generation
from tools.judges.low_dose import low_dose
from tools.judges.membership import MOST, membership
from tools.judges.reconstruction import kspace
from tools.judges.result import Result
from tools.judges.super_resolution import super_resolution
from tools.judges.unpaired import unpaired
from tools.judges.unrolled import unrolled
from zoo import registry
from zoo.translator import Translator

JUDGES: dict[str, Callable[[Translator], Result]] = {
    "automap_mri": kspace,
    "critic_ct_recon": partial(critic, dataset="ct_recon/phantom", lam=160.0, over_without=1.0),
    "cyclegan_cbct_ct": partial(
        unpaired, dataset="cbct_ct/phantom_scatter", share=0.6, matched=False
    ),
    "dcgan_lung_nodule": partial(generation, dataset="lung_nodule/phantom"),
    "encoder_decoder_ldct": low_dose,
    "encoder_decoder_ldct_fast": partial(low_dose, large="encoder_decoder_ldct"),
    "encoder_decoder_t1_t2": partial(contrasts, dataset="mri_contrast/heads"),
    "encoder_decoder_t1_t2_flair": partial(contrasts, dataset="mri_contrast/heads_t1_t2_flair"),
    "learned_primal_dual_ct_recon": partial(
        unrolled,
        dataset="ct_recon/phantom_many",
        quick="filtered back-projection",
        lam=160.0,
        over_tv=1.7,
        unet="encoder_decoder_ct_recon",
        over_unet=1.0,
    ),
    "pggan_mammo": partial(generation, dataset="mammo/phantom_128"),
    "pix2pix_ldct": partial(low_dose, texture=True),
    "srcnn_mri_x2": super_resolution,
    "srgan_mri_x2": partial(super_resolution, generator=True),
    "srgan_mri_x4": partial(super_resolution, generator=True),
    "srresnet_mri_x2": super_resolution,
    "srresnet_mri_x4": super_resolution,
    "unit_t1_t2": partial(unpaired, dataset="mri_contrast/mni152_128", share=0.5, matched=True),
    "varnet_mri_recon": partial(
        unrolled,
        dataset="mri_recon/phantom_128_many",
        quick="zero filling",
        lam=40.0,
        over_tv=1.5,
        unet="encoder_decoder_mri_recon",
        over_unet=1.5,
    ),
}

# What can be measured without all the others.
_APART: dict[str, Callable[[str, Translator, str], dict[str, Any]]] = {
    "membership": lambda name, model, dataset: membership(model, dataset),
    "fewer_bits": fewer_bits,
}


def differences(measured: dict[str, Any], stated: dict[str, Any]) -> list[str]:
    """What is not as stated, to one per cent or one unit of the last digit that is shown.

    Another machine's arithmetic moves the last digit; another file of weights moves more.
    """
    found = []
    for key in sorted({*measured, *stated}):
        if key not in measured or key not in stated:
            found.append(f"{key}: {'not measured' if key in stated else 'not stated'}")
            continue
        new, old = (np.atleast_1d(np.asarray(part[key], float)) for part in (measured, stated))
        digits = max(len(f"{v:.10g}".partition(".")[2]) for v in (*new, *old))
        close = np.abs(new - old) <= np.maximum(1.5 * 10.0**-digits, 0.01 * np.abs(old))
        if new.shape != old.shape or not close.all():
            found.append(f"{key}: stated {stated[key]}, measured {measured[key]}")
    return found


def _say(part: str, figures: dict[str, Any]) -> None:
    print(f"{part}: {figures['judged_on']}")
    for key, value in figures.items():
        if key != "judged_on":
            print(f"  {key} {value}")


def _show(result: Result) -> None:
    _say("metrics", {"judged_on": result.judged_on} | result.figures)
    for text, good in result.checks.items():
        print(f"  {'yes' if good else 'NO '} {text}")


def _changed(name: str, measured: dict[str, Any], stated: dict[str, Any]) -> list[str]:
    """What is not as an entry states it, in words."""
    new, old = ({k: v for k, v in part.items() if k != "judged_on"} for part in (measured, stated))
    found = [f"{name}: {line}" for line in differences(new, old)]
    if stated.get("judged_on") != measured["judged_on"]:
        found.append(f"{name}: judged_on: measured on {measured['judged_on']}")
    return found


def main() -> int:
    """Exit code 1 where a figure differs from what is stated, or a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="take the figures as the new ones")
    parser.add_argument("--only", choices=_APART, help="measure nothing else")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    entries = registry.index()["pretrained"]
    unknown = set(options.names) - set(entries)
    if unknown:
        parser.error(f"expected names of {', '.join(entries)}. Received: {', '.join(unknown)}")
    bad = []
    for name in options.names or entries:
        model, stored = zoo.load(name, precision="float32"), dict(entries[name])
        measured = {}
        print(f"\n{name}")
        for part in [options.only] if options.only else _APART:
            if found := _APART[part](name, model, stored["dataset"]):
                measured[part] = found
                _say(part, found)
        told = "membership" in measured and measured["membership"]["auc"][0] > MOST
        bad += [f"{name}: membership AUC at most {MOST}"] if told else []
        result = None if options.only else JUDGES[name](model)
        if result is not None:
            _show(result)
            bad += [f"{name}: {text}" for text, good in result.checks.items() if not good]
            measured["metrics"] = {"judged_on": result.judged_on} | result.figures
        if options.write:
            entries[name] |= measured
            pretrained.write_entry(name, stored | measured | {"summary": stored.pop("summary")})
        for part, figures in measured.items():
            bad += [] if options.write else _changed(name, figures, stored.get(part, {}))
        if result is None:
            cards.write_apart(name, entries[name])
        else:
            cards.write(name, entries[name], result)
    cards.write_table(entries)
    cards.write_membership(entries)
    print("\n" + "\n".join(bad or ["All figures are as stated."]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
