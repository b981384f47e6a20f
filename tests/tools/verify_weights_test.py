"""tools/verify_weights.py: what counts as another figure."""

from tools import verify_weights


def test_differences_name_what_changed():
    stated = {"psnr_db": [30.12, 29.0, 31.0], "copies": 0, "mae": 12.3}
    assert verify_weights.differences(stated, stated) == []
    assert verify_weights.differences(stated | {"mae": 12.31}, stated) == []
    (line,) = verify_weights.differences(stated | {"mae": 13.3}, stated)
    assert line == "mae: stated 12.3, measured 13.3"
    assert verify_weights.differences({"mae": 12.3}, {}) == ["mae: not stated"]
    (line,) = verify_weights.differences(stated | {"psnr_db": [30.9, 29.0, 31.0]}, stated)
    assert "psnr_db" in line
    assert verify_weights.differences(stated | {"copies": 3}, stated)
