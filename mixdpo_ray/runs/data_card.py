"""The README of published pairs: what they are, how they are loaded, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping

from mixdpo_ray.pairs.checking import REASONS
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.prepared_table import Manifest
from mixdpo_ray.training.card_metadata import data_sets
from mixdpo_ray.training.model_card import CITATION, folded_section, margins_table, recipe_of_card

_COLUMNS = """`prompt`, `chosen` and `rejected` are lists of messages, `margin` is how much better the chosen answer was
rated (0: a tie), `pair_id` the hash of the texts. Rows are in curriculum order, from clear to ambiguous."""
_USAGE = """from datasets import load_dataset

pairs = load_dataset(".")  # this folder, or its name on the Hub"""


def data_card(recipe: Recipe, manifest: Manifest, files: Mapping[str, tuple[str, int]]) -> str:
    """`files`: path and rows of each split. The licence is the sources' own, which nobody here knows."""
    from huggingface_hub import DatasetCardData

    named = data_sets(recipe.to_dict()["data"])
    metadata = DatasetCardData(
        pretty_name=recipe.output.name,
        tags=["preference-tuning", "mixdpo", "dpo", "trl"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": path} for split, (path, _) in files.items()],
            }
        ],
    )
    refused = [f"| {REASONS[reason]} | {count:,} |" for reason, count in sorted(manifest.quarantined.items())]
    counts = ", ".join(f"{rows:,} in `{split}`" for split, (_, rows) in files.items())
    parts = [
        f"---\n{str(metadata.to_yaml()).strip()}\n---",
        f"# {recipe.output.name}",
        f"Preference pairs in the order that MixDPO trains them in: {counts}.",
        _COLUMNS,
        f"```python\n{_USAGE}\n```",
        "## Source",
        f"Made of {', '.join(f'`{name}`' for name in named)}, whose licences hold." if named else "Files of its own.",
        f"{manifest.rows_kept:,} of {manifest.rows_in:,} pairs were kept.",
        *(["\n".join(["| refused | pairs |", "|---|---|", *refused])] if refused else []),
        *margins_table(manifest.margins.model_dump()),
        folded_section("Recipe of the data", {"data": recipe_of_card(recipe.to_dict())["data"]}),
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    ]
    return "\n\n".join(parts) + "\n"
