"""Standardised uptake values from the headers of positron emission tomography.

SUV by body weight = activity concentration (Bq/ml) x weight (g) / injected dose (Bq), the dose
decayed to the time that the images are corrected to. After the vendor-neutral rules of the
Quantitative Imaging Biomarkers Alliance (RSNA), FDG-PET/CT profile.
"""

import datetime
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import pydicom

from zoo.imaging.dicom import headers

SUV = "SUV"
_UNITS = {"BQML": "Bq/ml", "CNTS": "counts"}
_DAY = 86_400.0
_PHILIPS_SUV, _PHILIPS_ACTIVITY = (0x7053, 0x1000), (0x7053, 0x1009)
_NO_DATE = "00010101"
_LONGEST = 100  # half-lives after injection in which something is left to see
# what was given to anyone, in Bq, and what anyone weighs, in kg: some headers state MBq, or grams
_DOSE, _WEIGHT = (1e5, 1e12), (0.0, 800.0)


class _Moment(NamedTuple):
    """Seconds from the year 1, or from midnight where the date is not known."""

    seconds: float
    dated: bool


def unit(header: pydicom.Dataset) -> str:
    """What a header's Units (0054,1001) are called here; "1" where it names none."""
    name = headers.text(header, "Units").upper()
    if name == "GML":
        kind = headers.text(header, "SUVType").upper()
        return SUV if kind in ("", "BW") else f"{SUV} ({kind})"
    return _UNITS.get(name, name or "1")


def suv_factors(series: Sequence[pydicom.Dataset]) -> list[float]:
    """What turns the values of each slice into SUV by body weight, g/ml.

    Args:
        series: the whole headers of the slices of one series.

    Raises:
        ValueError: where a header lacks what it takes, naming the field.
    """
    begins = [_moment(header, "Acquisition") for header in series]
    begin = min((moment for moment in begins if moment), key=lambda m: m.seconds, default=None)
    return [_factor(header, begin) for header in series]


def _factor(header: pydicom.Dataset, begin: _Moment | None) -> float:
    units = headers.text(header, "Units").upper()
    if units == "GML":
        raise _lacks("SUVType BW", headers.text(header, "SUVType"))
    to_activity = 1.0
    if units == "CNTS":  # Philips keeps the factors apart
        for tag in (_PHILIPS_SUV, _PHILIPS_ACTIVITY):
            to_activity = float(header[tag].value or 0) if tag in header else 0.0
            if to_activity:
                if tag == _PHILIPS_SUV:
                    return to_activity
                break
        else:
            raise _lacks("the factor (7053,1000) or (7053,1009) of counts")
    elif units != "BQML":
        raise _lacks("Units BQML, CNTS or GML", units or "none")
    dose, weight = _dose(header, begin), _positive(header, "PatientWeight", _WEIGHT)
    return to_activity * weight * 1000.0 / dose


def _dose(header: pydicom.Dataset, begin: _Moment | None) -> float:
    """The injected dose in Bq, decayed to what the images are corrected to."""
    corrected = headers.text(header, "CorrectedImage").upper()
    for kind in ("ATTN", "DECY"):
        if corrected and kind not in corrected:
            raise _lacks(f"{kind} in CorrectedImage", "others")
    sequence = header.get("RadiopharmaceuticalInformationSequence")
    if not sequence or not isinstance(sequence, pydicom.Sequence):
        raise _lacks("RadiopharmaceuticalInformationSequence")
    drug = sequence[0]
    dose = _positive(drug, "RadionuclideTotalDose", _DOSE)
    correction = headers.text(header, "DecayCorrection").upper()
    if correction == "ADMIN":
        return dose
    if correction != "START":
        raise _lacks("DecayCorrection START or ADMIN", correction or "none")
    half_life = _positive(drug, "RadionuclideHalfLife")
    injection = _injection(drug, headers.text(header, "TimezoneOffsetFromUTC"))
    elapsed = _elapsed(_scan_start(header, begin, half_life), injection)
    if elapsed > _LONGEST * half_life:
        raise _lacks("RadiopharmaceuticalStartTime shortly before the scan", "a much earlier time")
    return dose * 2.0 ** (-elapsed / half_life)


def _elapsed(scan: _Moment, injection: _Moment) -> float:
    """Seconds from injection to scan; times without a date are less than a day apart."""
    if scan.dated and injection.dated:
        if scan.seconds < injection.seconds:
            raise _lacks("RadiopharmaceuticalStartDateTime before the scan", "a later one")
        return scan.seconds - injection.seconds
    return (scan.seconds - injection.seconds) % _DAY  # midnight may lie between


def _scan_start(header: pydicom.Dataset, begin: _Moment | None, half_life: float) -> _Moment:
    """When the scan started, to which decay is corrected."""
    series = _moment(header, "Series")
    if series is not None and (begin is None or _before(series, begin)):
        return series
    # a series made later has a later SeriesTime: General Electric keeps the scan's
    for block in _private(header, 0x0009, "GEMS_PETD_01"):
        if 0x0D in block:
            return _parsed(str(block[0x0D].value), "scan date and time (0009,xx0D)")
    own = _moment(header, "Acquisition") or begin
    if own is None or begin is None:
        raise _lacks("SeriesTime or AcquisitionTime")
    # others tell when after the start the counts of this frame were at their average
    reference = headers.number(header, "FrameReferenceTime")
    duration = headers.number(header, "ActualFrameDuration")
    if reference is None or duration is None:
        return begin
    rate = math.log(2) / half_life
    decay = rate * duration / 1000.0
    average = math.log(decay / -math.expm1(-decay)) / rate if decay > 0 else 0.0
    return own._replace(seconds=own.seconds + average - reference / 1000.0)


def _before(first: _Moment, second: _Moment) -> bool:
    if first.dated and second.dated:
        return first.seconds <= second.seconds
    return (second.seconds - first.seconds) % _DAY < _DAY / 2


def _private(header: pydicom.Dataset, group: int, creator: str) -> list:
    try:
        return [header.private_block(group, creator)]
    except KeyError:
        return []


def _injection(drug: pydicom.Dataset, zone: str) -> _Moment:
    """When the dose was given, in the time zone of the file's other times, "" where unknown."""
    whole = headers.text(drug, "RadiopharmaceuticalStartDateTime")
    if whole:
        moment = _parsed(whole, "RadiopharmaceuticalStartDateTime")
        own, local = _ahead(whole), _ahead(zone)
        if own is None or local is None:
            return moment
        return moment._replace(seconds=moment.seconds + local - own)
    time = headers.text(drug, "RadiopharmaceuticalStartTime")
    if not time:
        raise _lacks("RadiopharmaceuticalStartTime")
    return _parsed(_NO_DATE + time, "RadiopharmaceuticalStartTime")


def _moment(header: pydicom.Dataset, kind: str) -> _Moment | None:
    """SeriesDate and SeriesTime, or AcquisitionDate and AcquisitionTime; None without a time."""
    time, date = (headers.text(header, f"{kind}{part}") for part in ("Time", "Date"))
    return _parsed((date or _NO_DATE) + time, f"{kind}Date and {kind}Time") if time else None


def _parsed(text: str, what: str) -> _Moment:
    """YYYYMMDDHHMMSS.FFFFFF as seconds; a difference from universal time is left out."""
    digits, _, fraction = text.split("+")[0].split("-")[0].strip().replace(":", "").partition(".")
    try:
        if len(digits) < 10:
            raise ValueError
        moment = datetime.datetime.strptime(digits[:14].ljust(14, "0"), "%Y%m%d%H%M%S")
        seconds = float(f"0.{fraction or 0}")
    except ValueError:
        raise _lacks(f"a date and time in {what}", "other text") from None
    since = (moment - datetime.datetime(1, 1, 1)).total_seconds() + seconds
    return _Moment(since, dated=not digits.startswith(_NO_DATE))


def _ahead(text: str) -> float | None:
    """Seconds by which a time that ends in +HHMM or -HHMM is ahead of universal time."""
    found = re.search(r"([+-])(\d\d)(\d\d)$", text.strip())
    if found is None:
        return None
    hours, minutes = int(found[2]), int(found[3])
    return float(f"{found[1]}1") * (3600.0 * hours + 60.0 * minutes)


def _positive(
    dataset: pydicom.Dataset, keyword: str, limits: tuple[float, float] = (0.0, math.inf)
) -> float:
    value = headers.number(dataset, keyword)
    if value is None or value <= 0:
        raise _lacks(keyword, "none" if value is None else f"{value:g}")
    if not limits[0] <= value <= limits[1]:
        raise _lacks(f"{keyword} from {limits[0]:g} to {limits[1]:g}", f"{value:g}")
    return value


def _lacks(what: str, received: str = "none") -> ValueError:
    return ValueError(f"SUV: expected {what} in the header. Received: {received}")
