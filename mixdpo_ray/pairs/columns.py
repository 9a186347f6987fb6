"""The columns of a source: the format that they are of, all that is wrong with them, and what may be meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from mixdpo_ray.errors import FormatError
from mixdpo_ray.pairs.formats import FORMATS, idle_rule
from mixdpo_ray.pairs.settings import DataSettings
from mixdpo_ray.wording import what_was_meant

_THEIRS = "THEIRS"  # stands for a column that nobody can guess
_SHOWN = 20  # of a source's columns
_SCORES = ("score_chosen", "score_rejected")
_SPEAKS_OF = {  # what a word in the name of a column says
    "prompt": ("prompt", "question", "instruction", "query", "input", "request"),
    "chosen": ("chosen", "good", "best", "better", "preferred", "accepted", "winner", "winning", "positive"),
    "rejected": ("rejected", "bad", "worst", "worse", "dispreferred", "loser", "losing", "negative"),
    "rating": ("rating", "score", "reward", "grade", "star", "point"),
    "margin": ("margin", "gap", "difference", "diff"),
    "another": ("id", "length", "token", "model", "source", "index"),
}
_OURS = tuple(dict.fromkeys(one for kind in FORMATS.values() for one in (*kind.columns, *kind.optional)))
_MEANS = {  # our column: what the name of theirs speaks of, and of nothing else
    "prompt": {"prompt"},
    "chosen": {"chosen"},
    "rejected": {"rejected"},
    "score_chosen": {"chosen", "rating"},
    "score_rejected": {"rejected", "rating"},
    "margin": {"margin"},
}


def find_format(data: DataSettings, columns: Sequence[str]) -> str:
    """data.source.format for a source with these columns: detected where it is auto, checked where it is named.

    All that is wrong is told at once: a misspelt mapping counts as mended for what follows.
    """
    mapping, name = _mended(data.source.columns, columns), data.source.format
    names = [*(one for one in columns if one not in mapping.values()), *mapping]
    fitting = formats_of(names) if name == "auto" else [name]
    wrong = [_misnamed(ours, theirs, mapping) for ours, theirs in data.source.columns.items() if ours not in mapping]
    wrong += [_not_there(ours, theirs, columns) for ours, theirs in mapping.items() if theirs not in columns]
    if len(fitting) == 1:
        needs_ratings = data.missing_score != "hard" and not _has_ratings(fitting[0], names)
        wrong += _wrong_with(fitting[0], names, mapping)
        wrong += [_unrated(fitting[0], columns, mapping)] if needs_ratings else []
    else:
        wrong.append(
            f"columns {', '.join(sorted(names)) or '(none)'} fit {' and '.join(fitting) or 'no format'}: name one as "
            f"data.source.format ({', '.join(FORMATS)}), or map them"
        )
    if wrong:
        example = columns_example(columns, mapping, fitting[0] if len(fitting) == 1 else "plain")
        wrong.append(f"{data.source.name} has {_listed(columns)}: our name first, as in {example}")
    if len(fitting) == 1 and (idle := idle_rule(fitting[0], data.pair)):
        wrong.append(idle)
    if wrong:
        raise FormatError("; ".join(wrong).replace("?; ", "? "))
    return fitting[0]


def formats_of(columns: Collection[str]) -> list[str]:
    """The formats that explain most of the columns: one, unless nobody can tell."""
    found = set(columns)
    if found == {"chosen", "rejected"}:
        return ["hh_rlhf"]  # nothing but two transcripts; with further columns it has to be named
    fitting = {
        name: len(format.columns)
        for name, format in FORMATS.items()
        if name != "hh_rlhf" and found.issuperset(format.columns)
    }
    return [name for name, explained in fitting.items() if explained == max(fitting.values())]


def _mended(mapping: Mapping[str, str], columns: Collection[str]) -> dict[str, str]:
    """The mapping with our names as they were meant, and on the left."""
    mended = {}
    for ours, theirs in mapping.items():
        close = [] if ours in _OURS else difflib.get_close_matches(ours, _OURS, n=1, cutoff=0.75)
        if ours in columns and theirs in _OURS and theirs not in columns:
            mended[theirs] = ours
        else:
            mended[close[0] if close and close[0] not in mapping else ours] = theirs
    return mended


def columns_example(columns: Sequence[str], mapping: Mapping[str, str], name: str) -> str:
    """data.source.columns for a source: what is mapped already, what its names give away, and gaps to fill."""
    ours = FORMATS[name].columns
    if not FORMATS[name].rated:
        by_margin = _theirs("margin", columns, mapping) not in (None, _THEIRS) and not set(_SCORES) & set(mapping)
        ours = ("prompt", *ours, *(("margin",) if by_margin or "margin" in columns else _SCORES))
    filled = {one: _theirs(one, columns, mapping) for one in ours}
    written = ", ".join(f"{one}: {_quoted(theirs)}" for one, theirs in filled.items() if theirs is not None)
    return f'"data.source.columns={{{written}}}"'


def _theirs(ours: str, columns: Sequence[str], mapping: Mapping[str, str]) -> str | None:
    """The source's column that ours may be; none where it has our name already."""
    named = mapping.get(ours)
    if named in columns:
        return named
    if named is not None and (close := difflib.get_close_matches(named, columns, n=1)):
        return close[0]
    if ours in columns:
        return None
    free = [one for one in columns if one not in mapping.values()]
    alike = [one for one in free if _topics(one) == _MEANS.get(ours)]
    return alike[0] if len(alike) == 1 else _THEIRS


def _topics(column: str) -> set[str]:
    """What a name such as goodAnswer_rating speaks of."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower())
    known = {*words, *(word.removesuffix("s") for word in words)}
    topics = {topic for topic, spoken in _SPEAKS_OF.items() if known.intersection(spoken)}
    return topics - {"rating"} if "margin" in topics else topics


def _not_there(ours: str, theirs: str, columns: Collection[str]) -> str:
    said = f"data.source.columns names {theirs} (for {ours}), which the source does not have"
    return ": ".join(filter(None, [said, what_was_meant(theirs, columns)]))


def _misnamed(ours: str, theirs: str, mended: Mapping[str, str]) -> str:
    if mended.get(theirs) == ours:
        return f"data.source.columns writes {ours}: {theirs} the wrong way round"
    return f"data.source.columns maps {ours}, which no format reads: {what_was_meant(ours, _OURS)}"


def _wrong_with(name: str, names: Sequence[str], mapping: Mapping[str, str]) -> Iterator[str]:
    """What keeps a source of these names from being of a format."""
    read = (*FORMATS[name].columns, *FORMATS[name].optional)
    idle = [ours for ours in mapping if ours not in read]
    if idle:
        yield (
            f"data.source.columns maps {', '.join(idle)}, which format {name} does not read: "
            f"leave it out (it reads {', '.join(read)})"
        )
    missing = [column for column in FORMATS[name].columns if column not in names]
    if missing:
        yield f"format {name} needs columns {', '.join(missing)}"


def _has_ratings(name: str, names: Collection[str]) -> bool:
    return FORMATS[name].rated or "margin" in names or set(_SCORES) <= set(names)


def _unrated(name: str, columns: Sequence[str], mapping: Mapping[str, str]) -> str:
    said = f"format {name} has no ratings here: map their columns"
    if _THEIRS not in columns_example(columns, mapping, name):
        return said
    return (
        f"{said}, two scores or a margin; without any, let jobs/rate.py rate the pairs, or keep them as they are by "
        "data.missing_score=hard, and train them all by "
        "DPO (curriculum.mode=sorted_dpo curriculum.order=shuffled), or order them by another measure "
        "(curriculum.difficulty=length curriculum.threshold.hard_fraction=0.3); see jobs/recipes/unrated-pairs.yaml"
    )


def _listed(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return f"{', '.join(columns[:_SHOWN]) or 'no columns'}{more}"


def _quoted(column: str) -> str:
    """The name as it stands in YAML between braces."""
    return column if re.fullmatch(r"[A-Za-z_][\w .-]*", column) else "'" + column.replace("'", "''") + "'"
