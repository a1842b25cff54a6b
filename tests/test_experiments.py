"""The registry names functions, tables and figures that exist; one entry makes an experiment complete."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import pytest

import probing
from probing.api.measuring import experiment_function
from probing.errors import UserError
from probing.experiments import (
    EXPERIMENTS,
    FIGURES,
    STUDIES,
    Experiment,
    FigureSpec,
    Table,
    experiments_and_studies,
    resolve,
)
from probing.measure import options_of
from probing.options import OptionsParser
from tests.fakes.fake_store import FakeStore, make_pairs


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_name_of_an_entry_can_be_imported(name):
    experiment = EXPERIMENTS[name]
    assert callable(experiment.run) and experiment.question.endswith("?")
    for figure in experiment.figures:
        assert figure.table in experiment.table_names and callable(resolve(figure.draw))
        assert not figure.join or callable(resolve(figure.join))


def test_tables_and_figures_have_one_name_each():
    tables = [table.name for source in experiments_and_studies() for table in source.tables]
    figures = [figure.name for source in experiments_and_studies() for figure in source.figures]
    assert len(set(tables)) == len(tables) and sorted(FIGURES) == sorted(figures)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.command)
def test_a_study_has_a_command_and_a_figure_a_table(study):
    assert callable(resolve(f"{study.command}{'.__main__' if study.command.endswith('policy') else ''}:main"))
    assert [figure.name for figure in study.figures] == [figure.table for figure in study.figures]
    assert [figure.table for figure in study.figures] == [table.name for table in study.tables]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_setting_is_described(name):
    settings = EXPERIMENTS[name].settings_class
    described = re.findall(r"^    (\w+): ", inspect.cleandoc(settings.__doc__ or ""), flags=re.MULTILINE)
    assert {field.name for field in fields(settings)} <= set(described)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_public_function_has_the_settings_in_its_signature(name):
    experiment = EXPERIMENTS[name]
    function = getattr(probing, experiment.key)
    parameters = inspect.signature(function).parameters
    assert {field.name for field in fields(experiment.settings_class)} <= set(parameters)
    assert experiment.question in function.__doc__ and function.__name__ == experiment.key


def test_every_public_name_exists():
    assert all(getattr(probing, name) is not None for name in probing.__all__)


def test_a_command_does_not_hide_the_function_of_its_name():
    import probing.extract
    import probing.measure

    assert inspect.isfunction(probing.extract) and inspect.isfunction(probing.measure)


@pytest.fixture
def pair_counts(monkeypatch):
    experiment = Experiment(
        "pair-counts",
        "How many pairs has each facet?",
        "tests.fakes.pair_counts",
        "PairCountSettings",
        tables=(Table("pair_counts", "Pair counts", "How many pairs has each facet?"),),
        figures=(FigureSpec("pair_counts", "pair_counts", "tests.fakes.pair_counts:figure_pair_counts"),),
    )
    monkeypatch.setitem(EXPERIMENTS, experiment.name, experiment)
    monkeypatch.setitem(FIGURES, "pair_counts", experiment.figures[0])
    return experiment


def test_one_entry_gives_function_command_figure_and_page(pair_counts, tmp_path):
    pairs = make_pairs()
    store = FakeStore(pairs)
    result = experiment_function(pair_counts)(store, pairs, ties=True, output=tmp_path, keep=True)
    assert result.table.set_index("facet")["value"].to_dict() == pairs.groupby("facet").size().to_dict()
    assert result.plot().axes and result.figures == ["pair_counts"]
    assert probing.measure("pair-counts", store, pairs, ties=True, output=tmp_path, keep=True).table.equals(
        result.table
    )
    options, _ = OptionsParser("x", options_of(pair_counts), "").parse(["--store", "s", "--ties", "--facets", "a,b"])
    assert options.settings.ties and options.run.facets == ("a", "b")
    drawn = probing.draw_figures(tmp_path, tmp_path / "figures")
    assert "pair_counts" in drawn.figures and "How many pairs has each facet?" in drawn.page.read_text()


def test_unknown_experiments_settings_and_figures_are_refused(tmp_path):
    pairs = make_pairs()
    with pytest.raises(UserError, match="Unknown experiment 'curve'; choose one of reward-curve"):
        probing.measure("curve", FakeStore(pairs), pairs)
    with pytest.raises(UserError, match="noise has no setting 'shuffles'"):
        probing.noise(FakeStore(pairs), pairs, shuffles=2)
    with pytest.raises(UserError, match="needs a feature store"):
        probing.noise()
    result = probing.Result("noise", {"noise": pairs})
    with pytest.raises(UserError, match="has no figure 'x'; choose one of noise, noise_draws"):
        result.plot("x")
