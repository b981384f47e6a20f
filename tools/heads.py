"""How well a model makes one contrast of a head from others, on patients whose scans you have.

    python -m tools.heads --scans=FOLDER [--dataset=mri_contrast/heads] NAME ...

FOLDER holds a folder for each patient, as the data set's manual directory does (`zoo describe
mri_contrast`). NAMEs are pretrained models or folders of runs. Prints the error and the correlation
in the head, of the model and of the input with the target's histogram, and writes some slices.
"""

import argparse
from pathlib import Path

import zoo
from tools.judges import contrasts
from zoo import figures
from zoo_datasets.mri_contrast import heads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scans", type=Path, required=True, help="folder of patients' folders")
    parser.add_argument("--dataset", default="mri_contrast/heads", help="whose contrasts are meant")
    parser.add_argument("--weights", default="best", help="of runs: best, last or a step")
    parser.add_argument("--picture", type=Path, help="PNG of some slices")
    parser.add_argument("names", nargs="+", metavar="NAME")
    options = parser.parse_args()
    slices = list(contrasts.scanned(options.scans, contrasts.protocol_of(options.dataset)))
    for name in options.names:
        model = zoo.load(name, weights=options.weights)
        rows, pictures = contrasts.measured(model, iter(slices))
        print(f"\n{name}, {len(rows)} slices")
        for patient in sorted({row["patient"] for row in rows}):
            of_one = contrasts.summary([row for row in rows if row["patient"] == patient])
            means = (f"{key} {value[0]}" for key, value in of_one.items() if key != "mae_ratio")
            print(f"  {patient}: {', '.join(means)}, mae_ratio {of_one['mae_ratio']}")
    if options.picture:
        shown = [images for _, images in pictures[:: max(len(pictures) // 6, 1)]]
        figures.save_png(options.picture, figures.grid(shown, (0.0, 2.5 * heads.LEVEL)))


if __name__ == "__main__":
    main()
