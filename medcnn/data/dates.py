"""Dates of acquisition in a manifest: which columns hold them, and what days they are."""

import re

import pandas as pd

from medcnn.data.labels import is_blank

NAME = re.compile(r"(^|_)(date|datetime|day)(_|$)", re.IGNORECASE)
BIRTH = re.compile(r"birth|dob", re.IGNORECASE)
ISO = re.compile(r"^(\d{4})-(\d\d)-(\d\d)([T ].*)?$")
YEAR = re.compile(r"^((?:18|19|20)\d\d)(\.0)?$")
DICOM = re.compile(r"^(\d{4})(\d\d)(\d\d)(\.0)?$")  # the value representation DA; .0: read as a number


def date_columns(manifest: pd.DataFrame) -> list[str]:
    """Columns that are called a date (not of birth) and of which most values can be read as one."""
    named = [str(column) for column in manifest.columns if NAME.search(str(column)) and not BIRTH.search(str(column))]
    return [column for column in named if _mostly_dates(manifest[column])]


def as_days(values: pd.Series) -> pd.Series:
    """Days since 1970-01-01 as float64; NaN for blank and for what is no date.

    Read are dates of pandas, ISO 8601 (a time of day is dropped, since zones are rarely right), DICOM's 20200131, and a year
    alone, which counts as its first day.
    """
    if pd.api.types.is_datetime64_any_dtype(values):
        text = values.dt.strftime("%Y-%m-%d")
    else:
        text = pd.Series([None if is_blank(value) else _iso(str(value).strip()) for value in values], index=values.index, dtype=object)
    days = pd.to_datetime(text, errors="coerce", format="%Y-%m-%d")
    since: pd.Series = (days - pd.Timestamp(0)) / pd.Timedelta(days=1)
    return since


def _iso(text: str) -> str | None:
    if year := YEAR.match(text):
        return f"{year[1]}-01-01"
    found = ISO.match(text) or DICOM.match(text)
    return "-".join(found.groups()[:3]) if found else None


def _mostly_dates(values: pd.Series) -> bool:
    known = values[[not is_blank(value) for value in values]]
    return len(known) > 0 and bool(as_days(known).notna().mean() > 0.5)
