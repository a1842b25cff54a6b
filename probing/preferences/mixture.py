"""Several data sets as one: their pictures, items and pairs side by side, each prompt in one set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.images import ImageSource
from probing.preferences.images.heat_maps import HeatMaps
from probing.preferences.rules import Duplicates
from probing.preferences.splits import normalise_prompt

_SEPARATOR = ":"
MIXTURES: dict[str, tuple[tuple[str, str], ...]] = {
    "paper-mixture": (
        ("hpdv3", "confidence >= 0.95 or split != 'train'"),
        ("hpdv2", ""),
        ("pickapic-v1", ""),
        ("imagereward-db", "facet == 'overall'"),
    )
}
"""Mixtures by name: data sets, and a condition on each one's pairs.

``paper-mixture`` is DiT-Reward's (that of HPSv3) as far as it is public: which part of HPDv2 is golden, how many pairs
are drawn from Pick-a-Pic and ImageReward, and the choices of Midjourney's users are not.
"""


def mix(
    parts: Sequence[PreferenceData], *, shares: Sequence[float] = (), duplicates: Duplicates = "drop"
) -> PreferenceData:
    """Put data sets side by side.

    Ids begin with the name of their set. ``source`` names the set of a pair, and so does its facet (``hpdv3``, or
    ``hpdv3pp:aesthetics`` where the set has facets). A prompt of several sets is one prompt, whatever its spelling.

    Args:
        parts: Data sets with different names.
        shares: Of each set among the training pairs: whole prompts are left out, spread evenly, until they hold to the
            nearest prompt; as many pairs as possible are kept. All pairs if empty.
        duplicates: ``drop`` leaves the pairs of a prompt to the first set that has it; ``keep`` keeps all.

    Raises:
        UserError: A set twice, not one share above 0 a set, or a set without a training pair to share.
    """
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise UserError(f"Got the data sets {', '.join(names)}; name each once.")
    if shares and (len(shares) != len(parts) or min(shares) <= 0 or not np.isfinite(shares).all()):
        raise UserError(f"--mix takes one share above 0 a data set, got {len(shares)} for {len(parts)}.")
    of_sets = [part.items[["prompt_id", "prompt"]].drop_duplicates().assign(set=part.name) for part in parts]
    prompts = pd.concat(of_sets, ignore_index=True)
    words, _ = pd.factorize(prompts["prompt"].map(normalise_prompt))
    prompts["id"] = prompts["set"] + _SEPARATOR + prompts["prompt_id"]
    first = prompts.groupby(words, sort=False)[["id", "prompt", "set"]].transform("first")
    prompts = prompts.assign(one_id=first["id"], one_prompt=first["prompt"], one_set=first["set"])
    dropped = dict.fromkeys(names, 0)
    items, pairs = [], []
    for part in parts:
        one = prompts[prompts["set"] == part.name].set_index("prompt_id")
        if duplicates == "drop":
            mine = (part.pairs["prompt_id"].map(one["one_set"]) == part.name).to_numpy()
            dropped[part.name] = int((~mine).sum())
            if not mine.any():
                raise UserError(f"Every prompt of {part.name} is in a set named before it; leave {part.name} out.")
            part = part.keep(mine)
        items.append(_with_names(part.items, part.name, one, ("item_id",), ("image",)))
        of_part = _with_names(part.pairs, part.name, one, ("pair_id", "first", "second", "list_id"), ())
        facets = part.pairs["facet"]
        facets = (part.name + _SEPARATOR + facets).where(facets != "all", part.name)
        pairs.append(of_part.assign(facet=facets, source=part.name))
    data = PreferenceData(
        name="+".join(names),
        items=pd.concat(items, ignore_index=True),
        pairs=pd.concat(pairs, ignore_index=True),
        images=MixedImages({part.name: part.images for part in parts}),
        settings={
            "parts": {part.name: dict(part.settings) for part in parts},
            "dropped_duplicate_pairs": dropped,
            "shares": list(shares),
        },
    )
    return _shared(data, dict(zip(names, shares, strict=True))) if shares else data


def _with_names(
    table: pd.DataFrame, name: str, prompts: pd.DataFrame, ids: Sequence[str], texts: Sequence[str]
) -> pd.DataFrame:
    """Put a set's name before its ids, and give prompts the id and the spelling of the first set that has them."""
    named = {
        column: name + _SEPARATOR + table[column].astype(str)
        for column in (*ids, *texts)
        if column in table and table[column].notna().all()
    }
    named["prompt_id"] = table["prompt_id"].map(prompts["one_id"])
    if "prompt" in table:
        named["prompt"] = table["prompt_id"].map(prompts["one_prompt"])
    return table.assign(**named)


def _shared(data: PreferenceData, shares: dict[str, float]) -> PreferenceData:
    train = (data.pairs["split"] == "train").to_numpy()
    counts = data.pairs.loc[train, "source"].value_counts()
    for name in shares:
        if name not in counts:
            raise UserError(f"{name} has no training pairs, so that it can have no share of them; leave --mix out.")
    whole = min(counts[name] / share for name, share in shares.items())
    keep = ~train
    for name, share in shares.items():
        mine = train & (data.pairs["source"] == name).to_numpy()
        sizes = data.pairs.loc[mine, "prompt_id"].value_counts(sort=False)
        order = np.argsort(np.arange(len(sizes)) * 0.6180339887498949 % 1.0, kind="stable")
        fits = sizes.to_numpy()[order].cumsum() <= round(share * whole)
        fits[0] = True
        keep |= mine & data.pairs["prompt_id"].isin(sizes.index[order[fits]]).to_numpy()
    return data.keep(keep)


class MixedImages:
    """Pictures of several sources; a name begins with that of its source.

    Args:
        sources: By the name of their data set.
    """

    def __init__(self, sources: dict[str, ImageSource]) -> None:
        self._sources = sources
        self.can_be_bad = any(source.can_be_bad for source in sources.values())

    @property
    def location(self) -> str:
        return " ".join(source.location for source in self._sources.values())

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of heat map that any of the sources has."""
        found = [kind for source in self._sources.values() if isinstance(source, HeatMaps) for kind in source.kinds]
        return tuple(dict.fromkeys(found))

    def open(self, name: str, record: str) -> Image.Image:
        source, rest = self._of(name)
        return source.open(rest, record)

    def missing(self, names: Iterable[str]) -> list[str]:
        by_set: dict[str, list[str]] = {}
        for name in names:
            by_set.setdefault(name.partition(_SEPARATOR)[0], []).append(name.partition(_SEPARATOR)[2])
        return [
            f"{name}{_SEPARATOR}{missing}"
            for name, rest in by_set.items()
            for missing in self._sources[name].missing(rest)
        ]

    def stamp(self, name: str) -> str | None:
        source, rest = self._of(name)
        stamp = source.stamp(rest)
        return None if stamp is None else f"{source.location}\n{stamp}"

    def heat_map(self, name: str, kind: str, record: str) -> Float[np.ndarray, "row column"] | None:
        """Open a heat map; None where the source has none of this kind."""
        source, rest = self._of(name)
        if not isinstance(source, HeatMaps) or kind not in source.kinds:
            return None
        return source.heat_map(rest, kind, record)

    def _of(self, name: str) -> tuple[ImageSource, str]:
        source, _, rest = name.partition(_SEPARATOR)
        return self._sources[source], rest
