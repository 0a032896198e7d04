"""Is ckd's undistilled SASRec a strong one? Trains it on the split on which UniSRec's authors published theirs.

    python benchmarks/published/sasrec.py FOLDER --work build/published

FOLDER holds `Scientific.{train,valid,test}.inter`, `Scientific.text` and `Scientific.item2index` as UniSRec's
repository distributes them. They carry no licence, so they are not bundled. The script turns them into a domain,
trains SASRec with `ckd distill` for each seed, prints its test metrics beside the published ones (arXiv 2206.05941,
table 3), and leaves everything in the work folder. The recipe is ckd's default; `--set` changes it, and validation,
printed first, is what to choose by.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PUBLISHED = {"recall@10": 0.1080, "ndcg@10": 0.0553, "recall@50": 0.2042, "ndcg@50": 0.0760}


def sequences(folder: Path) -> dict[str, list[str]]:
    """Return each user's whole sequence of item indices: the first item, then every target in order of its history."""
    rows: dict[str, list[tuple[int, list[str], str]]] = {}
    for number, split in enumerate(("train", "valid", "test")):
        with (folder / f"Scientific.{split}.inter").open() as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                history = row["item_id_list:token_seq"].split(" ")
                rows.setdefault(row["user_id:token"], []).append((number, history, row["item_id:token"]))
    whole = {}
    for user, found in rows.items():
        # Training rows come longest history first; histories are cut to 50 items, so length alone can't order them.
        train = [row for row in found if row[0] == 0][::-1]
        held_out = sorted((row for row in found if row[0]), key=lambda row: row[0])
        ordered = [*train, *held_out]
        whole[user] = [ordered[0][1][0], *(target for _, _, target in ordered)]
    return whole


def write_domain(folder: Path, domain: Path) -> None:
    """Write the domain as items.parquet and interactions.parquet."""
    domain.mkdir(parents=True, exist_ok=True)
    found = sequences(folder)
    pairs = [(user, item, place) for user, items in found.items() for place, item in enumerate(items)]
    user, item, place = (list(column) for column in zip(*pairs, strict=True))
    pq.write_table(pa.table({"user_id": user, "item_id": item, "timestamp": place}), domain / "interactions.parquet")
    pq.write_table(pa.table({"item_id": sorted(set(item)), "title": sorted(set(item))}), domain / "items.parquet")


def configure(work: Path, domain: Path) -> Path:
    """Write the configuration of the benchmark."""
    path = work / "published.yaml"
    path.write_text(
        f"store: {work / 'store'}\n"
        f"domains: {{published: {{path: {domain}, k_core: 1}}}}\n"
        "students: {sasrec: {kind: sasrec}}\n"
    )
    return path


def main() -> None:
    """Convert, train one student a seed, print the table."""
    from ckd.pipeline.config.load import load_configuration
    from ckd.pipeline.plan import Plan, Run
    from ckd.storage.runs import read_metrics

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/published"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as ckd's own")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    write_domain(arguments.folder, work / "domain")
    path = configure(work, work / "domain")
    found: dict[str, list[float]] = {name: [] for name in PUBLISHED}
    valid = []
    for seed in range(arguments.seeds):
        overrides = [*arguments.set, f"seed={seed}"]
        command = [sys.executable, "-m", "ckd.pipeline", "-c", str(path), "distill"]
        subprocess.run(
            command + [text for one in overrides for text in ("--set", one)], check=True, stdout=subprocess.DEVNULL
        )
        plan = Plan(load_configuration(path, overrides))
        run = plan.store.find(plan.run(Run("sasrec", ("published",), False)))
        if run is None:
            raise RuntimeError(f"ckd distill left no run of seed {seed}")
        measured = read_metrics(run, "published")
        valid.append(measured["valid"]["ndcg@10"])
        for name in PUBLISHED:
            found[name].append(measured["test"][name])
    print(f"validation ndcg@10: {np.mean(valid):.4f}")
    print(f"{'':12}{'published':>12}{'ckd, mean':>12}{'std':>10}   seeds")
    for name, published in PUBLISHED.items():
        values = np.array(found[name])
        print(f"{name:12}{published:12.4f}{values.mean():12.4f}{values.std():10.4f}   {values.round(4).tolist()}")


if __name__ == "__main__":
    main()
