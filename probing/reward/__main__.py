"""Train, use and evaluate rewards: ``python -m probing.reward train --store STORE --output my-reward``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from probing.backbones.tuning import UNCHANGED, Tuning
from probing.commands import check_output_file, check_output_folder, run_command
from probing.data_options import DataOptions, SplitOptions
from probing.errors import UserError
from probing.features.settings import ENCODED
from probing.options import Verb, VerbsParser
from probing.preferences.rewards import read_rewards
from probing.reward.adapt_settings import AdaptSettings
from probing.reward.folder import CARD, MANIFEST, check_folder
from probing.reward.latent_reward import LatentReward
from probing.reward.training import HeadSettings, fit_head, plan_head
from probing.table_files import write_csv, write_parquet


@dataclass(frozen=True)
class TrainOptions:
    """Options of train.

    Attributes:
        store: Feature store to train on.
        output: Folder of the reward.
        head: What the head reads, and how it is fitted.
        split: Training and test pairs.
        seed: Seed of the split.
        device: Device of the fit: auto, cpu, or a torch device.
        overwrite: Replace a reward that is in the folder.
        dry_run: Print what would be trained, and stop.
    """

    store: Path
    output: Path
    head: HeadSettings = field(default_factory=HeadSettings)
    split: SplitOptions = field(default_factory=SplitOptions)
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class RewardOptions:
    """Which reward.

    Attributes:
        reward: Folder of a reward, or a repository of the hub.
        model: Backbone, as a registry name or folder; default: the name in the reward's manifest.
        tuning: Weights that changed its transformer, if any did.
        device: Device of the forwards: auto, cpu, cuda, cuda:1, mps.
    """

    reward: str
    model: str | None = None
    tuning: Tuning = UNCHANGED
    device: str = "auto"

    def load(self) -> LatentReward:
        """Load the reward; its backbone waits until it scores."""
        return LatentReward.load(self.reward, model=self.model, device=self.device, **vars(self.tuning))


@dataclass(frozen=True)
class ScoreOptions:
    """Options of score: one picture or several with a prompt, or the items of a data set.

    Attributes:
        kept: Reward and backbone.
        prompt: Prompt of the pictures.
        image: Picture; repeat the option for several.
        draws: Draws of noise; their mean is printed with its standard error.
        data: Pairs and pictures, where no picture is given.
        split: Split whose items are scored; default: all.
        output: Write the scores as .csv or .parquet with item_id and reward.
    """

    kept: RewardOptions
    prompt: str | None = None
    image: tuple[Path, ...] = ()
    draws: int = 1
    data: DataOptions = field(default_factory=DataOptions)
    split: str | None = None
    output: Path | None = None


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of evaluate.

    Attributes:
        reward: Folder of a reward; repeat the option for several.
        scores: Scores of another reward, as NAME=FILE with item_id (or prompt and image) and reward.
        data: Pairs and pictures.
        split: Split whose pairs are scored; pairs of validation tune thresholds.
        rules: Scoring rules; default: all.
        model: Backbone of the rewards; default: the names in their manifests.
        device: Device of the forwards.
        output: Folder of the tables accuracies.csv and differences.csv.
    """

    reward: tuple[Path, ...] = ()
    scores: Mapping[str, str] = field(default_factory=dict)
    data: DataOptions = field(default_factory=DataOptions)
    split: str = "test"
    rules: tuple[str, ...] | None = None
    model: str | None = None
    device: str = "auto"
    output: Path | None = None


@dataclass(frozen=True)
class AdaptOptions:
    """Options of adapt.

    Attributes:
        kept: The frozen reward and its backbone.
        output: Folder of the adapted reward.
        data: Pairs and pictures.
        settings: How to train.
        encoded: Folder of encoded pictures and prompts, to read and to add to; default: encoded beside the output.
        overwrite: Replace a reward that is in the folder.
    """

    kept: RewardOptions
    output: Path
    data: DataOptions = field(default_factory=DataOptions)
    settings: AdaptSettings = field(default_factory=AdaptSettings)
    encoded: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class MergeOptions:
    """Options of merge.

    Attributes:
        kept: An adapted reward and its backbone.
        output: Folder of the transformer, for probing.extract --transformer.
    """

    kept: RewardOptions
    output: Path


@dataclass(frozen=True)
class ServeOptions:
    """Options of serve.

    Attributes:
        kept: Reward and backbone.
        host: Address to listen on; another than this machine's own needs a token.
        port: Port.
        token_file: File with the token that every request must carry.
        name: Name of the reward in UniRL's requests.
        batch_size: Most items of one forward; with 1, scores do not depend on other requests to the last bit.
        wait_ms: Milliseconds that the first item of a batch waits for others.
        queue_size: Most waiting items; more are refused with status 503.
        most_mb: Largest request, in MB.
    """

    kept: RewardOptions
    host: str = "127.0.0.1"
    port: int = 8017
    token_file: Path | None = None
    name: str = "latent_reward"
    batch_size: int = 16
    wait_ms: float = 5.0
    queue_size: int = 4096
    most_mb: int = 64


@dataclass(frozen=True)
class ExportOptions:
    """Options of export.

    Attributes:
        reward: Folder of the reward.
        hub: Repository of the Hugging Face hub, as OWNER/NAME.
        private: Make it private.
    """

    reward: Path
    hub: str
    private: bool = False


@dataclass(frozen=True)
class CardOptions:
    """Options of card.

    Attributes:
        reward: Folder of the reward.
    """

    reward: Path


def train(options: TrainOptions) -> None:
    """Train, and write the reward."""
    from probing.features import FeatureStore

    check_output_folder(options.output)
    check_folder(options.output, overwrite=options.overwrite)
    store = FeatureStore.open(options.store)
    sites, probe, note = plan_head(store, options.head)
    print(f"   head  {type(probe).__name__} on {len(sites)} sites: {', '.join(map(str, sites))}")
    if note:
        print(f" preset  {note}")
    print(f" output  {options.output}", flush=True)
    if options.dry_run:
        return
    pairs = options.split.split(store.read_pairs(), seed=options.seed)
    reward = fit_head(store, pairs, options.head, device=options.device)
    reward.save(options.output, overwrite=options.overwrite)
    _report(reward, options.output, f"score --reward {options.output} --prompt TEXT --image FILE")


def adapt(options: AdaptOptions) -> None:
    """Adapt the backbone of a reward; an interrupted training goes on with the same command."""
    from probing.reward.adapting import adapt as adapt_reward
    from probing.reward.processes import Processes

    check_output_folder(options.output)
    check_folder(options.output, overwrite=options.overwrite)
    frozen, data = options.kept.load(), options.data.load()
    beside = options.output.absolute().parent
    adapted = adapt_reward(
        frozen,
        data,
        options.settings,
        encoded=options.encoded or beside / ENCODED,
        checkpoint=beside / f"{options.output.name}.training",
    )
    if not Processes().is_first:
        return
    adapted.save(options.output, overwrite=options.overwrite)
    for row in adapted.manifest.training["history"]:
        accuracy, loss = row["validation_accuracy"], row["validation_loss"]
        print(f"  epoch {row['epoch']}: {100 * accuracy:.1f}% and {loss:.4f} nats on the validation pairs")
    _report(adapted, options.output, f"merge --reward {options.output} --output TRANSFORMER")


def _report(reward: LatentReward, folder: Path, following: str) -> None:
    """Print the accuracies of a trained reward, and the paths to open next."""
    for row in reward.manifest.accuracies:
        print(f"  {row['facet']}: {_percent(row)} of {row['n_pairs']:,} test pairs of {row['n_prompts']:,} prompts")
    print(f"Reward:   {folder}\nCard:     {folder / CARD}\nNext:     python -m probing.reward {following}")


def merge(options: MergeOptions) -> None:
    """Write the adapted transformer in diffusers' format."""
    check_output_folder(options.output)
    options.kept.load().save_transformer(options.output)
    print(
        f"Transformer: {options.output}\n"
        f"Next:        python -m probing.extract --model MODEL --transformer {options.output}"
    )


def score(options: ScoreOptions) -> None:
    """Score pictures, or the items of a data set."""
    if bool(options.image) != (options.prompt is not None):
        raise UserError("Give --prompt and --image together, or neither to score the items of --data.")
    if options.output is not None:
        _check_table(options.output)
    reward = options.kept.load()
    if options.image:
        assert options.prompt is not None
        scores = reward.score_draws(options.prompt, list(options.image), draws=options.draws)
        for path, mean, error in zip(options.image, scores.mean, scores.standard_error, strict=True):
            print(f"{mean:+.4f}" + (f" ± {error:.4f}" if options.draws > 1 else "") + f"  {path}")
        table = pd.DataFrame({"prompt": options.prompt, "image": [str(path) for path in options.image]})
        table["reward"] = scores.mean
    else:
        table = reward.score_data(options.data.load(options.split))
        print(f"{len(table):,} items: mean {table['reward'].mean():+.3f}, deviation {table['reward'].std():.3f}")
    print("Higher is better; a difference of two scores is the log odds that the first is chosen.")
    if options.output is not None:
        _write(options.output, table)
        print(f"Scores:   {options.output}")


def evaluate(options: EvaluateOptions) -> None:
    """Evaluate rewards by every rule."""
    from probing.reward.evaluation import evaluate as evaluate_rewards

    names = [path.name for path in options.reward] + list(options.scores)
    if not names or len(set(names)) < len(names):
        raise UserError("Give --reward or --scores NAME=FILE, each of a name of its own.")
    if options.output is not None:
        check_output_folder(options.output)
    rewards: dict[str, LatentReward | pd.DataFrame] = {
        path.name: LatentReward.load(path, model=options.model, device=options.device) for path in options.reward
    }
    rewards |= {name: read_rewards(Path(file)) for name, file in options.scores.items()}
    data = options.data.load((options.split, "validation"))
    result = evaluate_rewards(rewards, data, rules=options.rules, split=options.split)
    for (facet, rule), rows in result.accuracies.groupby(["facet", "rule"], sort=False):
        print(f"{data.name}, {options.split}, facet {facet}, {rule}; value [95% interval over prompts]")
        for row in rows.to_dict("records"):
            value = f"not applicable: {row['note']}" if pd.isna(row["value"]) else _percent(row)
            print(f"  {row['reward']}: {value}")
    cited = result.accuracies[result.accuracies["citation"].notna()]
    for row in cited.to_dict("records"):
        print(f"  published, {row['citation']}: {row['reward']} {100 * row['value']:.1f}%")
    for row in result.differences.to_dict("records"):
        print(
            f"  {row['facet']}: {row['first']} less {row['second']} {100 * row['difference']:+.1f} points "
            f"[{100 * row['ci_low']:+.1f}, {100 * row['ci_high']:+.1f}], p = {row['p_value_holm']:.3g} (Holm)"
        )
    if options.output is not None:
        for name in result._fields:
            write_csv(options.output / f"{name}.csv", getattr(result, name))
        print(f"Tables:   {', '.join(f'{name}.csv' for name in result._fields)} in {options.output}")


def serve(options: ServeOptions) -> None:
    """Serve a reward over HTTP."""
    try:
        from probing.reward.server import bind, create_app, serve_app, version_of
    except ImportError as error:
        raise UserError(f"The server needs {error.name}; install it with pip install 'dit-probing[serve]'.") from error
    token = _token(options)
    # Before the weights are read, which takes minutes.
    listener = bind(options.host, options.port)
    reward = options.kept.load()
    app = create_app(
        reward,
        name=options.name,
        token=token,
        batch_size=options.batch_size,
        wait=options.wait_ms / 1000,
        queue_size=options.queue_size,
        most_bytes=options.most_mb * 10**6,
    )
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{options.port}"
    print(
        f"Serving:  {options.kept.reward} (version {version_of(reward)}) at {address}\n"
        f"Requests: {address}/v1/score (latents), {address}/score (pictures), {address}/healthz",
        flush=True,
    )
    serve_app(app, listener)


def _token(options: ServeOptions) -> str | None:
    if options.token_file is None:
        if options.host not in ("127.0.0.1", "localhost", "::1"):
            raise UserError(f"--host {options.host} is open to other machines; give --token-file, or leave it out.")
        return None
    try:
        token = options.token_file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"--token-file {options.token_file} cannot be read ({error}); check the path.") from error
    if len(token) < 16:
        raise UserError(f"{options.token_file} holds a token of {len(token)} characters; use 16 or more.")
    return token


def export(options: ExportOptions) -> None:
    """Upload a reward to the hub."""
    url = LatentReward.load(options.reward).push_to_hub(options.hub, private=options.private)
    print(f"Reward:   {url}")


def card(options: CardOptions) -> None:
    """Write the card again, from the manifest."""
    LatentReward.load(options.reward).save(options.reward, overwrite=True)
    print(f"Card:     {options.reward / CARD}, from {MANIFEST}")


def _percent(row: Mapping[Any, Any]) -> str:
    return f"{100 * row['value']:.1f}% [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"


def _check_table(path: Path) -> None:
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"--output is a .csv or .parquet file, got {path}.")
    check_output_file(path)


def _write(path: Path, table: pd.DataFrame) -> None:
    (write_csv if path.suffix == ".csv" else write_parquet)(path, table)


VERBS = {
    "train": Verb("train a head on a feature store, and keep it", lambda: TrainOptions, train),
    "adapt": Verb("adapt the backbone of a reward, by LoRA or all weights", lambda: AdaptOptions, adapt),
    "merge": Verb("write an adapted transformer, to extract its features", lambda: MergeOptions, merge),
    "score": Verb("score pictures, or the items of a data set", lambda: ScoreOptions, score),
    "evaluate": Verb("score rewards on a benchmark by every rule", lambda: EvaluateOptions, evaluate),
    "serve": Verb("serve a reward to trainers over HTTP", lambda: ServeOptions, serve),
    "export": Verb("upload a reward to the Hugging Face hub", lambda: ExportOptions, export),
    "card": Verb("write the card again, from the manifest", lambda: CardOptions, card),
}

PARSER = VerbsParser("probing.reward", VERBS, __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda call: call(), PARSER, argv)


if __name__ == "__main__":
    raise SystemExit(main())
