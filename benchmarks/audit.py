"""What the audit sees: flaws planted into real images, drift between real parts and cohorts, labels exchanged on purpose; and what it costs.

    python benchmarks/audit.py DATA [flaws] [drift] [noise]     # DATA: the folder with covid_cxr, histology, pneumoniamnist.npz, dicom

Prints Markdown; `benchmarks/results/audit.md` holds it, with what `medcnn audit` says of the same sets.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medcnn.data.drift import compare, drift_finding, sample, trait_table
from medcnn.data.formats import UnreadableImage
from medcnn.data.images import decode_image, to_uint8
from medcnn.data.label_noise import TRIED_SHARE, doubt_labels
from medcnn.data.quality import quality_of
from medcnn.data.quality_findings import KINDS, flaws_of
from medcnn.data.shortcut_features import pixel_features
from medcnn.evaluation.discrimination import auroc_interval

Flaw = Callable[[np.ndarray, np.random.Generator], np.ndarray]
N_PLANTED = 40  # of each flaw, one flaw at a time
MOST_IMAGES = 1300  # of a set that flaws are planted into
N_HALVES = 40
SIDE_PX = 64


def blurred(image: np.ndarray, _: np.random.Generator, share: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), share * max(image.shape[:2]))


def written(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image, height = image.copy(), image.shape[0]
    size = height / 512 * rng.uniform(0.6, 1.1)
    place = int(rng.uniform(0.02, 0.5) * image.shape[1]), int(rng.choice([0.06, 0.95]) * height)
    words = str(rng.choice(["AP PORTABLE 12:40", "DOE JOHN 1951", "SUPINE 40 IN", "ERECT PA CHEST"]))
    colour = 255 if image.ndim == 2 else (255, 255, 255)
    return cv2.putText(image, words, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, max(1, round(1.6 * size)), cv2.LINE_AA)


def cut(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    rows, columns = int(0.6 * height), int(0.6 * width)
    y, x = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    return cv2.resize(image[y : y + rows, x : x + columns], (width, height), interpolation=cv2.INTER_CUBIC)


def clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


FLAWS: dict[str, tuple[str, Flaw]] = {
    "blank (one grey, noise of 1 level)": (
        "blank_image",
        lambda x, r: clipped(np.full(x.shape, r.integers(0, 256)) + r.normal(0, 1, x.shape)),
    ),
    "over-exposed (times 2.2 to 3)": ("saturated_image", lambda x, r: clipped(x.astype(float) * r.uniform(2.2, 3))),
    "under-exposed (minus 110 to 150)": ("saturated_image", lambda x, r: clipped(x.astype(float) - r.uniform(110, 150))),
    "blurred, sigma 1% of the side": ("blurred_image", lambda x, r: blurred(x, r, 0.01)),
    "blurred, sigma 2% of the side": ("blurred_image", lambda x, r: blurred(x, r, 0.02)),
    "turned by 90 or 270 degrees": ("turned_image", lambda x, r: np.rot90(x, int(r.choice([1, 3]))).copy()),
    "turned by 180 degrees": ("turned_image", lambda x, _: np.rot90(x, 2).copy()),
    "mirrored": ("mirrored_image", lambda x, _: x[:, ::-1].copy()),
    "inverted": ("inverted_image", lambda x, _: 255 - x),
    "cut to 60% of each side": ("cropped_image", cut),
    "a line of text": ("text_in_image", written),
}


def load(name: str, data: Path) -> tuple[list[np.ndarray], pd.DataFrame]:
    """Images, uint8, and image_id, patient_id, height, width, label of one set."""
    if name == "pneumoniamnist":
        with np.load(data / "pneumoniamnist.npz") as archive:
            images = [image for part in ("train", "val", "test") for image in archive[f"{part}_images"]]
            label = np.concatenate([archive[f"{part}_labels"].ravel() for part in ("train", "val", "test")])
            part = np.repeat(["train", "val", "test"], [len(archive[f"{part}_images"]) for part in ("train", "val", "test")])
        table = pd.DataFrame({"patient_id": [f"{row:05d}" for row in range(len(images))], "label": label, "part": part})
    elif name == "dicom radiographs":
        images, patients = [], []
        index = pd.read_csv(data / "dicom" / "index.csv")
        for path in sorted((data / "dicom").rglob("*")):
            if path.is_file() and path.suffix.lower() not in {".csv", ".md", ".txt", ".json"}:
                try:
                    pixels = to_uint8(decode_image(path))
                except UnreadableImage:
                    continue
                if pixels.ndim == 2 and min(pixels.shape) >= SIDE_PX and "cxr" in path.as_posix():
                    images.append(pixels)
                    patients.append(path.name)
        table = pd.DataFrame({"patient_id": patients, "label": 0})
        assert len(index)
    else:
        folder = data / ("covid_cxr" if name == "covid_cxr" else "histology")
        table = pd.read_csv(folder / "manifest.csv")
        images = [decode_image(folder / "images" / file) for file in table["image"]]
        table["patient_id"] = table["patient_id" if name == "covid_cxr" else "slide_run_guess"].astype(str)
    table["image_id"] = [f"{row:05d}" for row in range(len(images))]
    return images, table.assign(height=[image.shape[0] for image in images], width=[image.shape[1] for image in images])


def with_traits(images: list[np.ndarray], table: pd.DataFrame) -> pd.DataFrame:
    return table.join(pd.DataFrame([quality_of(image) for image in images], index=table.index))


def planted(images: list[np.ndarray], clean: pd.DataFrame) -> pd.DataFrame:
    """Recall of each flaw, planted into N_PLANTED images of a cohort that is else as it is (one flaw a cohort)."""
    rows = []
    for name, (kind, flaw) in FLAWS.items():
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(images))[: min(N_PLANTED, len(images) // 10)]
        table = clean.copy()
        changed = pd.DataFrame([quality_of(flaw(images[row], rng)) for row in chosen], index=chosen)
        for column in changed:
            table.loc[chosen, column] = changed[column]
        seen = flaws_of(table)
        found = seen.scores.loc[chosen] > 0
        # A cast so bright that nothing is left is rightly called blank.
        hit = found[kind] | (found["blank_image"] if kind == "saturated_image" else False)
        rows.append({"flaw": name, "recall": "not judged" if kind in seen.not_judged else f"{int(hit.sum())}/{len(chosen)}"})
    return pd.DataFrame(rows).set_index("flaw")


def markdown(table: pd.DataFrame) -> str:
    rows = [table.columns.astype(str).tolist(), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def flaws(data: Path) -> None:
    recall, alarms = {}, {}
    for name in ("covid_cxr", "pneumoniamnist", "histology", "dicom radiographs"):
        images, table = load(name, data)
        images, table = images[:MOST_IMAGES], table[:MOST_IMAGES]
        started = time.process_time()
        clean = with_traits(images, table)
        cost = 1e3 * (time.process_time() - started) / len(images)
        started = time.process_time()
        seen = flaws_of(clean)
        judged = time.process_time() - started
        title = f"{name} (n = {len(images)})"
        recall[title] = planted(images, clean)["recall"]
        print(recall[title].to_string(), file=sys.stderr, flush=True)
        alarms[title] = pd.Series(
            {kind: "not judged" if kind in seen.not_judged else str(int((seen.scores[kind] > 0).sum())) for kind in KINDS}
        )
        print(f"- {title}: measures {cost:.2f} ms of CPU an image, judging the cohort {judged:.1f} s", flush=True)
    print("\nRecall of planted flaws\n\n" + markdown(pd.DataFrame(recall).reset_index()))
    print("\nImages named in the sets as they are\n\n" + markdown(pd.DataFrame(alarms).rename_axis("kind").reset_index()), flush=True)


def told_apart(a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str], seed: int = 0) -> dict[str, object]:
    seen = compare(a, b, names=names, seed=seed)
    auroc = auroc_interval(seen.y, seen.p)
    limits = (float(auroc.value or 0.5), float(auroc.low or 0.5), float(auroc.high or 0.5))
    found = drift_finding(seen, limits, kind="drift", todo="")
    differing = seen.traits[seen.traits["p_holm"] < 0.05]
    most = ", ".join(f"{row['trait']} {row['distance']:.2f}" for row in differing.head(3).to_dict("records"))
    said = found.severity if found else "none"
    return {
        "reference": names[0],
        "new": names[1],
        "AUROC": "{:.3f} ({:.3f} to {:.3f})".format(*limits),
        "traits": len(differing),
        "most (D)": most,
        "finding": said,
    }


def drifts(data: Path) -> None:
    tables = {}
    for name in ("covid_cxr", "pneumoniamnist", "histology"):
        images, table = load(name, data)
        traits = with_traits(images, table)
        tables[name] = table, trait_table(table, traits)
    rows = []
    table, traits = tables["pneumoniamnist"]
    train = sample(traits[table["part"] == "train"])
    rows += [told_apart(train, sample(traits[table["part"] == part]), ("pneumoniamnist train", part)) for part in ("val", "test")]
    table, traits = tables["covid_cxr"]
    nih = table["source"].str.startswith("NIH")
    rows.append(told_apart(sample(traits[nih]), sample(traits[~nih]), ("covid_cxr NIH", "Cohen")))
    rows.append(told_apart(sample(traits), sample(tables["pneumoniamnist"][1]), ("covid_cxr", "pneumoniamnist")))
    table, traits = tables["histology"]
    low = table["magnification"] == "100x"
    rows.append(told_apart(sample(traits[low]), sample(traits[~low]), ("histology 100x", "400x")))
    print("\n" + pd.DataFrame(rows).pipe(markdown), flush=True)
    rows = []
    for name, (_, traits) in tables.items():
        rng, said, aurocs = np.random.default_rng(0), [], []
        for seed in range(N_HALVES):
            patients = rng.permutation(traits["patient_id"].unique())
            half = traits["patient_id"].isin(patients[: len(patients) // 2])
            found = told_apart(sample(traits[half], 500), sample(traits[~half], 500), ("a", "b"), seed)
            said.append(found["finding"])
            aurocs.append(float(str(found["AUROC"]).split()[0]))
        counts = pd.Series(said).value_counts()
        rows.append(
            {
                "random halves of": name,
                "note": int(counts.get("info", 0)),
                "warning": int(counts.get("warning", 0)),
                "of": N_HALVES,
                "AUROC": f"{min(aurocs):.3f} to {max(aurocs):.3f}",
            }
        )
    print("\n" + pd.DataFrame(rows).pipe(markdown), flush=True)


def noise(data: Path) -> None:
    rows = []
    for name in ("pneumoniamnist", "histology", "covid_cxr"):
        images, table = load(name, data)
        prepared = np.stack([cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for image in images])
        found = pixel_features(prepared[..., None] if prepared.ndim == 3 else prepared, np.arange(len(prepared)))
        features = np.concatenate([found["thumbnail"], found["grey_levels"]], axis=1)
        classes = sorted(table["label"].unique())
        labels = [str(one) for one in (classes[-1:] if len(classes) == 2 else classes)]
        ys = {f"y_{label}": (table["label"].astype(str) == label).astype(float) for label in labels}
        manifest = table[["image_id", "patient_id"]].assign(**ys)
        doubts = doubt_labels(manifest, features, labels, task="binary" if len(labels) == 1 else "multiclass", seed=0)
        rows.append(
            {
                "set": name, "named as it is": f"{len(doubts.table)} of {doubts.n}", "exchanged": doubts.n_tried,
                "recall": f"{doubts.recall:.2f}", "precision at least": f"{doubts.precision:.2f}",
            }
        )  # fmt: skip
    title = f"{100 * TRIED_SHARE:.0f}% of the labels exchanged on purpose; seen are a thumbnail and the grey levels"
    print(f"\n{title}\n\n" + markdown(pd.DataFrame(rows)), flush=True)


if __name__ == "__main__":
    root, asked = Path(sys.argv[1]), sys.argv[2:] or ["flaws", "drift", "noise"]
    cv2.setNumThreads(1)
    for name, measure in {"flaws": flaws, "drift": drifts, "noise": noise}.items():
        if name in asked:
            measure(root)
