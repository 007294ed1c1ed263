"""Settings of one cohort's main model, compared on inner folds of its training patients. The config is not changed.

`python -m pipelines.search CONFIG [section.key=value ...]` does the same work as `medcnn search`.
"""

import sys
from pathlib import Path

from medcnn import cohort_stages, model_stages
from medcnn.config import Config
from medcnn.config_file import read_config
from medcnn.runs import open_run
from medcnn.search import search
from medcnn.search_space import read_space


def search_settings(config: Config, out: Path | None = None, *, update: bool = False, quiet: bool = False) -> Path:
    """Every stage up to the cache, then the search; those that are done are skipped. Returns the search's folder.

    Raises InputError for what the user can mend (config, search space, data, findings of the audit), RunError for a failure.
    """
    read_space(config)  # what cannot be searched is refused before the first image is read
    run = open_run(config, out, update=update, quiet=quiet)

    ingested = cohort_stages.ingest(run)
    audited = cohort_stages.audit(run, ingested)
    cohort_stages.require_sound(run, audited)

    fingerprinted = cohort_stages.fingerprint(run, audited)
    planned = model_stages.plan(run, fingerprinted)
    dealt = cohort_stages.split(run, audited, planned)
    cached = cohort_stages.cache(run, audited, planned)

    return search(run, {"fingerprint": fingerprinted, "plan": planned, "audit": audited, "split": dealt, "cache": cached})


if __name__ == "__main__":
    print(f"found: {search_settings(read_config(Path(sys.argv[1]), sys.argv[2:])) / 'best.yaml'}")
