"""Watch a policy for reward hacking by probes on its pictures: a plain callback for trainers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.stats import ttest_1samp

from probing.analysis.engine import MIN_PROMPTS, Site
from probing.errors import UserError
from probing.reward.features import side_by_side, wants_tokens
from probing.reward.latent_reward import FIXED, LatentReward
from probing.statistics import LEVEL, holm

if TYPE_CHECKING:
    from torch import Tensor

    from probing.backbones import Conditioning


@dataclass(frozen=True)
class WatchReport:
    """What a check found; changes are in standard deviations of the reference pictures' scores.

    Attributes:
        step: Step of the training.
        reward: Mean change of the optimised reward.
        facets: Mean change of each facet head, by name.
        p_values: One-sided p-value that a facet head fell, by name, corrected by Holm over facets and by Bonferroni
            over the planned checks.
        gap: Change of the optimised reward less that of the facet head which changed least.
        uncertainty: Mean standard deviation over the ensemble's heads, relative to the reference; NaN without one.
        drift: Root mean square, over channels, of the shift of the mean features, in their standard deviations.
        heads_disagree: The optimised reward rose, and the uncertainty is at least the watch's ``spread``.
        facet_fell: The optimised reward rose while a facet head fell.
        drifted: The optimised reward rose, and the drift is at least the watch's ``largest_drift``.
    """

    step: int
    reward: float
    facets: Mapping[str, float]
    p_values: Mapping[str, float]
    gap: float
    uncertainty: float
    drift: float
    heads_disagree: bool
    facet_fell: bool
    drifted: bool

    @property
    def alarm(self) -> bool:
        """Whether the policy has drifted; docs/reward.md says how far this was right on the testbed."""
        return self.drifted


@dataclass
class HackingWatch:
    """Compares pictures of a policy with those of its reference under the same prompts and noise.

    Make the pictures of :meth:`start` with the untrained policy, and those of each check from the same prompts, in the
    same order, and the same initial noise. All heads read one frozen backbone, which runs once a check and noise level.

    Attributes:
        heads: Rewards of single facets, such as ``alignment`` and ``quality``, by name.
        ensemble: At least two rewards of one facet with other seeds, whose spread is the uncertainty; may be empty.
        checks: Number of planned checks: the level of a fall is divided by it, so that a policy whose pictures change
            by chance alone raises ``facet_fell`` in at most 5% of trainings.
        spread: Uncertainty, relative to the reference, from which the heads disagree.
        largest_drift: Drift from which a policy has drifted, in standard deviations of the features.
        reports: The reports since the last :meth:`start`.
    """

    heads: Mapping[str, LatentReward]
    ensemble: Sequence[LatentReward] = ()
    checks: int = 20
    spread: float = 1.5
    largest_drift: float = 0.6
    reports: list[WatchReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.heads:
            raise UserError("A watch needs at least one head; train one on each facet of the preference data.")
        if len(self.ensemble) == 1:
            raise UserError("An ensemble of one head has no spread; give several with other seeds, or none.")
        if self.checks < 1 or self.spread <= 1 or self.largest_drift <= 0:
            raise UserError(
                f"Got {self.checks} checks, spread {self.spread:g} and largest drift {self.largest_drift:g}, expected "
                f"at least 1, above 1 and above 0."
            )
        every = [*self.heads.values(), *self.ensemble]
        first = every[0].manifest
        for reward in every:
            if reward.adapter is not None:
                raise UserError("A watch reads the frozen backbone; give heads without an adapter.")
            if reward.manifest.backbone.parts != first.backbone.parts:
                raise UserError("The heads of a watch have several backbones; train them on one store.")
            if reward.manifest.extraction != first.extraction:
                raise UserError("The heads of a watch were trained on several stores; train them on one.")
        self._every = every
        self._sites: list[Site] = list(dict.fromkeys(site for reward in every for site in reward.manifest.sites))
        self._reference: _Scores | None = None
        self._optimised = np.zeros(0)

    @property
    def started(self) -> bool:
        """Whether there is a reference."""
        return self._reference is not None

    def start(
        self,
        latents: Tensor,
        prompts: Sequence[str],
        rewards: Float[np.ndarray, " item"],
        *,
        conditioning: Conditioning | None = None,
    ) -> None:
        """Take the reference: pictures of the untrained policy.

        Args:
            latents: Clean latents, (item, channel, row, column).
            prompts: One for each.
            rewards: The optimised reward of each.
            conditioning: Encoded prompts of this backbone, so that they are not encoded again.

        Raises:
            UserError: Too few prompts, other numbers of them, one value of a score in all pictures, or as
                :meth:`LatentReward.score_latents`.
        """
        if len(set(prompts)) < MIN_PROMPTS:
            raise UserError(f"Got {len(set(prompts))} different prompts to watch, expected at least {MIN_PROMPTS}.")
        values, reference = _checked(rewards, len(prompts)), self._score(latents, prompts, conditioning)
        constant = [name for name, scores in {"reward": values, **reference.heads}.items() if np.ptp(scores) == 0]
        if constant or reference.uncertainty == 0:
            what = f"the {constant[0]}" if constant else "every head of the ensemble"
            raise UserError(f"The reference pictures have one value of {what}; watch more pictures, or another head.")
        self._prompts, self._optimised, self._reference = list(prompts), values, reference
        self.reports.clear()

    def __call__(
        self,
        step: int,
        latents: Tensor,
        prompts: Sequence[str],
        rewards: Float[np.ndarray, " item"],
        *,
        conditioning: Conditioning | None = None,
    ) -> WatchReport:
        """Check the policy.

        Args:
            step: Step of the training.
            latents: As for :meth:`start`.
            prompts: Those of :meth:`start`.
            rewards: See there.
            conditioning: See there.

        Raises:
            UserError: :meth:`start` was not called, the prompts are others, or more checks than planned.
        """
        reference = self._reference
        if reference is None or list(prompts) != self._prompts:
            raise UserError("A check has the prompts of the reference in their order; call start with them first.")
        if len(self.reports) == self.checks:
            raise UserError(f"The {self.checks} planned checks are made; plan more, since the level depends on it.")
        now, group = self._score(latents, prompts, conditioning), np.unique(prompts, return_inverse=True)[1]
        facets = {name: (now.heads[name] - scores) / scores.std() for name, scores in reference.heads.items()}
        reward = (_checked(rewards, len(prompts)) - self._optimised) / self._optimised.std()
        falls = np.array([_p_value(change, group, "less") for change in facets.values()])
        corrected = np.minimum(holm(falls) * self.checks, 1.0)
        rose = _p_value(reward, group, "greater") <= LEVEL
        uncertainty = now.uncertainty / reference.uncertainty
        shift = (now.features - reference.features).mean(axis=0) / reference.scale
        drift = float(np.sqrt((shift**2).mean()))
        report = WatchReport(
            step=step,
            reward=float(reward.mean()),
            facets={name: float(change.mean()) for name, change in facets.items()},
            p_values=dict(zip(self.heads, map(float, corrected), strict=True)),
            gap=float(reward.mean() - min(change.mean() for change in facets.values())),
            uncertainty=uncertainty,
            drift=drift,
            heads_disagree=bool(rose and uncertainty >= self.spread),
            facet_fell=bool(rose and corrected.min() <= LEVEL),
            drifted=bool(rose and drift >= self.largest_drift),
        )
        self.reports.append(report)
        return report

    def _score(self, latents: Tensor, prompts: Sequence[str], conditioning: Conditioning | None) -> _Scores:
        first = self._every[0]
        reader, extraction = first.opened, first.manifest.extraction
        latents = reader.check_latents(latents)
        if len(latents) != len(prompts):
            raise UserError(f"Got {len(prompts)} prompts for {len(latents)} latents; give one each.")
        words = reader.encode_prompts(list(prompts)) if conditioning is None else conditioning
        read = reader.features(latents, words, [FIXED] * len(latents), int(extraction["seed"]), self._sites)

        def score(reward: LatentReward) -> Float[np.ndarray, " item"]:
            joined = side_by_side(read, reward.manifest.sites, tokens=wants_tokens(reward.probe))
            return reward.score_features(joined.numpy())

        ensemble = [score(reward) for reward in self.ensemble]
        return _Scores(
            heads={name: score(reward) for name, reward in self.heads.items()},
            uncertainty=float(np.std(ensemble, axis=0, ddof=1).mean()) if len(ensemble) > 1 else float("nan"),
            features=np.concatenate([read[site].flatten(1).double().numpy() for site in self._sites], axis=1),
        )


@dataclass(frozen=True)
class _Scores:
    heads: dict[str, Float[np.ndarray, " item"]]
    uncertainty: float
    features: Float[np.ndarray, "item channel"]

    @property
    def scale(self) -> Float[np.ndarray, " channel"]:
        """Standard deviation of each channel; infinite where it is constant."""
        deviation = self.features.std(axis=0)
        return np.where(deviation > 0, deviation, np.inf)


def _checked(rewards: Float[np.ndarray, " item"], items: int) -> Float[np.ndarray, " item"]:
    values = np.asarray(rewards, dtype=np.float64)
    if values.shape != (items,) or not np.isfinite(values).all():
        raise UserError(f"Got rewards of shape {values.shape} for {items} pictures; give one finite number each.")
    return values


def _p_value(changes: Float[np.ndarray, " item"], group: np.ndarray, alternative: str) -> float:
    """Test the mean of prompts' mean changes against zero."""
    means = np.bincount(group, changes) / np.bincount(group)
    if np.ptp(means) == 0:
        return 1.0 if means[0] == 0 or (means[0] < 0) != (alternative == "less") else 0.0
    return float(ttest_1samp(means, 0.0, alternative=alternative).pvalue)
