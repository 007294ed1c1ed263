"""What cannot be true of patients: ages, sexes and dates that contradict themselves or each other.

Warnings, no errors: covariates steer subgroups and what the probes see, no training. They often mean more than a slip of
the pen: two people under one number, or rows that slid against each other.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from medcnn.cohort import Finding
from medcnn.data.copies import first_of
from medcnn.data.dates import as_days, date_columns
from medcnn.data.labels import is_blank

OLDEST_YEARS = 120
AGE = re.compile(r"^(patient_?)?age(_?(y|years))?$", re.IGNORECASE)
SEX = re.compile(r"^(patient_?)?(sex|gender)$", re.IGNORECASE)
AGE_STRING = re.compile(r"^(\d{1,3})([DWMY])$", re.IGNORECASE)  # the value representation AS of DICOM
YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
SEXES = {
    "female": {"f", "female", "w", "woman", "girl"},
    "male": {"m", "male", "man", "boy"},
    "other": {"o", "other", "d", "diverse", "x", "nonbinary", "non-binary", "intersex"},
    "unknown": {"u", "unknown", "not stated", "?"},
}
FIRST_DAY = float((pd.Timestamp("1895-11-08") - pd.Timestamp(0)).days)  # no medical image is older than the X-ray
DAYS_PER_YEAR = 365.25
AGE_SLACK_YEARS = 2.0  # ages are whole years, and so may be dates


def covariate_findings(manifest: pd.DataFrame, *, today: float) -> list[Finding]:
    """Findings on columns that are called age, sex and date. today: days since 1970, no image was taken later.

    Kinds: impossible_age (below 0, above 120, or no number), age_units (045Y among or instead of numbers), unknown_sex,
    sex_spelling, sex_changes (within a patient), impossible_date, age_against_date (falls, or grows faster than time).
    """
    ages = {name: _ages(manifest[name]) for name in _named(manifest, AGE)}
    sexes = {name: _sexes(manifest[name]) for name in _named(manifest, SEX)}
    days = {name: as_days(manifest[name]) for name in date_columns(manifest)}
    found = [finding for name, years in ages.items() for finding in _age_findings(manifest, name, years)]
    found += [finding for name, words in sexes.items() for finding in _sex_findings(manifest, name, words)]
    found += [finding for name, day in days.items() for finding in _date_findings(manifest, name, day, today)]
    found += [finding for age in ages for date in days for finding in _age_by_date(manifest, (age, ages[age]), (date, days[date]))]
    return found


def _named(manifest: pd.DataFrame, pattern: re.Pattern[str]) -> list[str]:
    return [str(column) for column in manifest.columns if pattern.match(str(column))]


# ---------------------------------------------------------------- age


def age_years(value: object) -> float:
    """Years of a number or of a DICOM age string (045Y, 18M); NaN for blank, infinity for what is neither."""
    if is_blank(value):
        return float("nan")
    text = str(value).strip()
    if found := AGE_STRING.match(text):
        return float(found[1]) * YEARS[found[2].upper()]
    try:
        years = float(text)
    except ValueError:
        return float("inf")
    return years if np.isfinite(years) else float("inf")


def _ages(values: pd.Series) -> pd.Series:
    return values.map(age_years, na_action=None).astype(np.float64)


def _age_findings(manifest: pd.DataFrame, column: str, years: pd.Series) -> list[Finding]:
    found = []
    wrong = (years < 0) | (years > OLDEST_YEARS)
    if wrong.any():
        values = sorted({str(value) for value in manifest.loc[wrong, column]})
        text = f"{column} is impossible in {int(wrong.sum())} of {len(manifest)} images: {first_of(values)}; expected 0 to {OLDEST_YEARS} years."
        todo = "Mend the table: a blank is better than a wrong age. Look whether other columns of these rows slid too."
        found.append(_finding("impossible_age", text, todo, manifest, wrong))
    with_unit = manifest[column].map(lambda value: not is_blank(value) and bool(AGE_STRING.match(str(value).strip())))
    if with_unit.any():
        values = sorted({str(value) for value in manifest.loc[with_unit, column]})
        text = (
            f"{column} is written with its unit in {int(with_unit.sum())} of {int(years.notna().sum())} images that have it: "
            f"{first_of(values)}. Such a column counts as words, so that no age bands can be made of it."
        )
        found.append(_finding("age_units", text, "Write ages as numbers, in years (18M is 1.5).", manifest, with_unit))
    return found


# ---------------------------------------------------------------- sex


def _sexes(values: pd.Series) -> pd.Series:
    """female, male, other, unknown, None for blank; any other word as itself."""
    known = {word: sex for sex, words in SEXES.items() for word in words}
    return pd.Series(
        [None if is_blank(value) else known.get(str(value).strip().lower(), str(value)) for value in values],
        index=values.index,
        dtype=object,
    )


def _sex_findings(manifest: pd.DataFrame, column: str, sexes: pd.Series) -> list[Finding]:
    found = []
    strange = sexes.notna() & ~sexes.isin(list(SEXES))
    if strange.any():
        values = sorted(set(sexes[strange]))
        text = f"{column} is {first_of(values)} in {int(strange.sum())} of {len(manifest)} images; expected F, M or words for them."
        todo = "If it is a code (0 and 1), write the words: nobody else knows which is which. Else mend the table."
        found.append(_finding("unknown_sex", text, todo, manifest, strange))
    words = manifest[column][sexes.isin(["female", "male"])].astype(str).str.strip()
    spelt = words.groupby(sexes[words.index]).unique()
    several = [" and ".join(sorted(spellings)) for spellings in spelt if len(spellings) > 1]
    if several:
        text = f"{column} is spelt in several ways: {'; '.join(several)}. Each spelling becomes a subgroup of its own."
        found.append(_finding("sex_spelling", text, "Spell each sex in one way.", manifest, pd.Series(False, index=manifest.index)))
    both = sexes[sexes.isin(["female", "male"])].groupby(manifest["patient_id"]).nunique()
    patients = sorted(both.index[both > 1].astype(str))
    if patients:
        text = f"{column} changes within {len(patients)} of {manifest['patient_id'].nunique()} patients, first {first_of(patients)}."
        todo = "Most often two people share a number, or rows slid. If so, mend patient_id: intervals and parts go by it."
        found.append(_finding("sex_changes", text, todo, manifest, manifest["patient_id"].astype(str).isin(patients)))
    return found


# ---------------------------------------------------------------- dates


def _date_findings(manifest: pd.DataFrame, column: str, days: pd.Series, today: float) -> list[Finding]:
    known = manifest[column].map(lambda value: not is_blank(value))
    wrong = known & ~((days >= FIRST_DAY) & (days <= today))
    if not wrong.any():
        return []
    values = sorted({str(value) for value in manifest.loc[wrong, column]})
    text = f"{column} is impossible in {int(wrong.sum())} of {len(manifest)} images: {first_of(values)}; expected a day from 1895 to today."
    return [_finding("impossible_date", text, "Mend the table; a date in the future often means day and month exchanged.", manifest, wrong)]


def _age_by_date(manifest: pd.DataFrame, age: tuple[str, pd.Series], date: tuple[str, pd.Series]) -> list[Finding]:
    """Each patient's age minus the time that passed must be one number, to within the rounding of ages."""
    (age_name, years), (date_name, days) = age, date
    usable = years.between(0, OLDEST_YEARS) & days.notna()
    born = (years - days / DAYS_PER_YEAR)[usable]
    spread = born.groupby(manifest["patient_id"][usable]).agg(np.ptp)
    patients = sorted(spread.index[spread > AGE_SLACK_YEARS].astype(str))
    if not patients:
        return []
    text = (
        f"{age_name} and {date_name} contradict each other in {len(patients)} of {len(spread)} patients (by up to {spread.max():.0f} years): "
        f"the age falls, or grows faster than time, first {first_of(patients)}."
    )
    todo = "Most often two people share a number. Mend patient_id, or the dates."
    return [_finding("age_against_date", text, todo, manifest, manifest["patient_id"].astype(str).isin(patients))]


def _finding(kind: str, text: str, todo: str, manifest: pd.DataFrame, rows: pd.Series) -> Finding:
    images: Sequence[str] = manifest.loc[rows.to_numpy(dtype=bool), "image_id"].astype(str).tolist()
    return Finding(severity="warning", kind=kind, text=text, todo=todo, image_ids=tuple(images))


KINDS = ("impossible_age", "age_units", "unknown_sex", "sex_spelling", "sex_changes", "impossible_date", "age_against_date")
