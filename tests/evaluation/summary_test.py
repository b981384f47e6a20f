from measured import Blur, evaluated, pairs
from zoo.evaluation import summary


def test_the_command_prints_intervals_over_patients(tmp_path):
    results = evaluated(Blur(), pairs(10), tmp_path)
    lines = summary.lines(results)
    found = results["summary"]["output"]["psnr"]["patients"]
    low, high = found["ci95"]
    line = next(line for line in lines if line.startswith("  PSNR "))
    assert line.startswith(f"  PSNR {found['mean']:.4g} dB ({low:.4g} to {high:.4g}, 4 patients)")
    gain = results["summary"]["gain"]["psnr"]["patients"]
    assert line.endswith(
        f"against the input {gain['mean']:+.4g} dB ({gain['ci95'][0]:+.4g} to "
        f"{gain['ci95'][1]:+.4g})"
    )
    assert any(line.startswith("  MAE in the body ") and " HU (" in line for line in lines)
    unknown = [{k: v for k, v in e.items() if k != "patient"} for e in pairs(10)]
    lines = summary.lines(evaluated(Blur(), unknown, tmp_path))
    assert any(line.startswith("  PSNR ") and ", 10 images)" in line for line in lines)
