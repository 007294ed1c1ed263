"""The ladder in words: what each rung is, what it buys and costs, and whether a rung that sees no disease does as well."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from medcnn.evaluation.estimates import Estimate
from medcnn.evaluation.significance import Difference
from medcnn.report.facts import RunFacts, RungFacts
from medcnn.report.numbers import compact, count, difference, duration, estimate, fixed, is_known, join_words, percent, plural
from medcnn.tables import Comparison, Record

TITLES = {
    "prevalence": "Prevalence",
    "shortcuts": "Shortcuts",
    "frozen": "Frozen features",
    "mil": "Attention over bags",
    "simple_cnn": "Small network",
    "main": "Main model",
    "soup": "Weight average",
    "ensemble": "Ensemble",
}
WHAT = {
    "prevalence": "the share of the finding in the training part, for every image",
    "shortcuts": "logistic regression on traits of the file, borders, grey levels, a thumbnail and acquisition metadata, which hold little or no disease",
    "frozen": "logistic regression on the features of {model} as it was pretrained",
    "mil": "gated attention over the features of {model} as it was pretrained, one prediction for all images of a slide, study or patient together",
    "simple_cnn": "{model}, trained from random weights",
    "main": "{model}, trained on these images",
    "soup": "one network: the average of the main models’ weights",
    "ensemble": "the mean of the predictions of all trained models",
}
OVERTURNED = "A model that sees little or no disease does about as well."


def rung_title(name: str) -> str:
    """The rung's name as it is printed."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def rung_words(rung: RungFacts) -> str:
    """What the rung is."""
    if rung.weights is not None and rung.weights.how == "fitted":
        return "the weighted mean of the predictions of all trained models"
    return WHAT.get(rung.name, "{model}").format(model=rung.model or "the network")


def headline_of(ladder: Sequence[RungFacts]) -> RungFacts | None:
    """The rung that the report is about; None without a ladder."""
    return next((rung for rung in ladder if rung.is_headline), None)


def as_record(metric: str, found: Estimate, label: str = "") -> Record:
    """An estimate as a record, to be printed as records are."""
    return Record(metric=metric, label=label, value=found.value, low=found.low, high=found.high, method=found.method, note=found.note)


def gap(found: Difference) -> str:
    """A difference in AUROC with its sign and interval."""
    return difference(Comparison(metric="auroc", label="", a="", b="", difference=found.difference, low=found.low, high=found.high))


def auroc_text(rung: RungFacts) -> str:
    """The rung's AUROC with its interval."""
    return estimate(as_record("auroc", rung.numbers.auroc))


def shortcut_alert(facts: RunFacts) -> str:
    """What must stand at the top of the report where the interval of the shortcuts overlaps the headline's; else nothing."""
    headline = headline_of(facts.ladder)
    shortcuts = next((rung for rung in facts.ladder if rung.name == "shortcuts"), None)
    if headline is None or shortcuts is None or headline is shortcuts:
        return ""
    reached, lowest = (_limit(shortcuts.numbers.auroc, "high"), _limit(headline.numbers.auroc, "low"))
    if reached is None or lowest is None or reached < lowest:
        return ""
    return (
        f"{OVERTURNED} Traits of the file, borders, grey levels, a thumbnail and acquisition metadata alone reach an AUROC of"
        f" {auroc_text(shortcuts)}, which overlaps that of the headline, {auroc_text(headline)}. The model may have learnt how the images"
        " came about and not what they show: do not rely on its numbers before this is explained."
    )


def _limit(found: Estimate, side: str) -> float | None:
    """A limit of the interval; the value itself where there is none; None where nothing is estimable."""
    limit = getattr(found, side)
    value = limit if is_known(limit) else found.value
    return value if is_known(value) else None


# ---------------------------------------------------------------- sentences


def ladder_sentences(facts: RunFacts) -> list[str]:
    """Which rung is the headline, what each rung buys and costs, how far chance moves it, and what choosing cost."""
    ladder = facts.ladder
    said = [_headline_sentence(facts), *(_step_sentence(lower, upper) for lower, upper in pairwise(ladder)), _cheapest_sentence(ladder)]
    said += [_weights_sentence(rung) for rung in ladder]
    said += [_chance_sentence(rung) for rung in ladder]
    said.append(_selection_sentence(facts))
    return [sentence for sentence in said if sentence]


def _headline_sentence(facts: RunFacts) -> str:
    headline = headline_of(facts.ladder)
    if headline is None:
        return ""
    asked = facts.config.ladder.headline if facts.config is not None else None
    by = "" if asked is None else ", by the rule that the last rung is the headline" if asked == "auto" else ", in the config"
    return (
        f"The headline, which all other sections are about, is {_inner(headline)}. It was named before the test part was opened{by};"
        " it was not chosen for its numbers here."
    )


def _step_sentence(lower: RungFacts, upper: RungFacts) -> str:
    """What the upper of two neighbours buys and costs."""
    found = upper.numbers.to_previous
    if found is None or found.difference is None:
        return ""
    step, price = f"From {_inner(lower)} to {_inner(upper)}", _price(lower, upper)
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return f"{step} no difference in AUROC is shown: {gap(found)}{price}."
    return f"{step} the AUROC {'rises' if found.low > 0 else 'falls'}: {gap(found)}{price}."


def _price(lower: RungFacts, upper: RungFacts) -> str:
    parts = []
    if upper.cpu_seconds != lower.cpu_seconds and upper.cpu_seconds is not None and lower.cpu_seconds is not None:
        parts.append(f"{time_words(upper.cpu_seconds)} of CPU time in training instead of {time_words(lower.cpu_seconds)}")
    if upper.n_models and lower.n_models and upper.n_models != lower.n_models:
        parts.append(f"{plural(upper.n_models, 'model')} to ask instead of {count(lower.n_models)}")
    return f"; {' and '.join(parts)}" if parts else ""


def time_words(seconds: float | None) -> str:
    """A duration; `none` where nothing is trained."""
    return "none" if seconds == 0 else duration(seconds)


def _cheapest_sentence(ladder: Sequence[RungFacts]) -> str:
    """The cheapest rung that is not shown to be worse than the headline, where it is cheaper."""
    headline = headline_of(ladder)
    if headline is None or not is_known(headline.cpu_seconds):
        return ""
    fair = [
        (rung.cpu_seconds, rung)
        for rung in ladder
        if rung.cpu_seconds is not None
        and rung.numbers.to_headline is not None
        and rung.numbers.to_headline.high is not None
        and rung.numbers.to_headline.high >= 0
    ]
    if not fair:
        return "Every other rung is shown to be worse than the headline, or its difference has no interval." if len(ladder) > 1 else ""
    cost, rung = min(fair, key=lambda pair: pair[0])
    if cost >= (headline.cpu_seconds or 0.0):
        return ""
    return (
        f"The cheapest rung that is not shown to be worse than the headline is {_inner(rung)}: {time_words(cost)} of CPU time in training"
        f" instead of {duration(headline.cpu_seconds)}. Not shown to be worse does not mean as good: the interval of the difference says how much worse it may be,"
        f" {_gap_to_headline(rung)}."
    )


def _gap_to_headline(rung: RungFacts) -> str:
    return gap(rung.numbers.to_headline) if rung.numbers.to_headline is not None else "0"


def _weights_sentence(rung: RungFacts) -> str:
    """How an ensemble weighs its rungs, and what that does not say."""
    if rung.weights is None:
        return ""
    if rung.weights.how == "equal":
        return "The ensemble weighs its rungs alike, whatever their quality: a weak rung pulls it down."
    said = [f"{_named(name)} {_share(*limits)}" for name, limits in rung.weights.spread().items()]
    return (
        f"The ensemble’s weights are those with the lowest log-loss on {rung.weights.fitted_on}, without the patients whom the fold tests:"
        f" {join_words(said)}; a small weight says that the rung adds little beside the others, not that it is poor."
    )


def _share(mean: float, low: float, high: float) -> str:
    """A weight, and its range over the folds where it differs."""
    return fixed(mean) if fixed(low) == fixed(high) else f"{fixed(mean)} ({fixed(low)} to {fixed(high)} over the folds)"


def _chance_sentence(rung: RungFacts) -> str:
    single = rung.numbers.single
    if single is None:
        return ""
    return (
        f"{rung_title(rung.name)}: single models reach an AUROC of {fixed(single.mean)} on average (SD {fixed(single.sd)}, {count(single.n)} models);"
        f" together they reach {fixed(rung.numbers.auroc.value)}."
    )


def _selection_sentence(facts: RunFacts) -> str:
    found = facts.selection
    if found is None or found.naive is None:
        return ""
    share = found.picked.get(found.best)
    often = "" if share is None else f", in {percent(share, 0)} of the resamples"
    corrected = estimate(as_record("auroc", found.corrected))
    return (
        f"Whoever chose the rung by its log-loss on out-of-fold predictions would choose {_named(found.best)}{often}. Its AUROC of {fixed(found.naive)} there is"
        f" too good, because the same patients chose it; corrected for the choice it is {corrected} (bootstrap bias-corrected cross-validation,"
        " doi:10.1007/s10994-018-5714-4)."
    )


def _inner(rung: RungFacts) -> str:
    return _named(rung.name)


def _named(name: str) -> str:
    """A title within a sentence."""
    return f"the {rung_title(name).lower()}" if name not in {"frozen", "mil", "shortcuts"} else rung_title(name).lower()


# ---------------------------------------------------------------- for a manuscript


def ladder_methods(facts: RunFacts) -> str:
    """What else was evaluated on the same split, in one or two sentences."""
    headline = headline_of(facts.ladder)
    others = [rung for rung in facts.ladder if not rung.is_headline]
    if headline is None or not others:
        return ""
    named = join_words([f"{rung_title(rung.name).lower()} ({rung_words(rung)})" for rung in others])
    n_models = headline.n_models or 0
    fitted = headline.weights if headline.weights is not None and headline.weights.how == "fitted" else None
    by = f" (weights of the lowest log-loss on {fitted.fitted_on})" if fitted else ""
    mean = "weighted mean" if fitted else "mean"
    several = f" Its prediction is the {mean} of {plural(n_models, 'model')}{by}." if n_models > 1 and headline.name != "soup" else ""
    return f"On the same split we evaluated {named}; {_inner(headline)} was named as the headline before the test part was opened.{several}"


def ladder_results(facts: RunFacts) -> str:
    """Each other rung's AUROC."""
    others = [rung for rung in facts.ladder if not rung.is_headline and is_known(rung.numbers.auroc.value)]
    said = [f"{auroc_text(rung)} by {_inner(rung)}" for rung in others]
    return f"On the same images, AUROCs of {join_words(said)} were reached." if said else ""


def model_words(rung: RungFacts) -> tuple[str, str]:
    """How many models, and how large one of them is."""
    size = compact(rung.n_parameters)
    number = "–" if rung.n_models is None else count(rung.n_models) if rung.n_models else "none"
    return number, f"{size} parameters{' each' if (rung.n_models or 0) > 1 else ''}" if size != "–" else ""


def picked_rows(picked: Mapping[str, float]) -> list[tuple[str, str]]:
    """Rung -> share of the resamples that picked it, the most picked first."""
    return [(rung_title(name), percent(share, 0)) for name, share in sorted(picked.items(), key=lambda item: -item[1])]
