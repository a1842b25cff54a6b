"""Fitted probes as plain data: a description and named arrays, from which the same probe is made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from probing.probes._base import LinearProbe, Probe
from probing.probes._floors import MeanDifferenceProbe, PrincipalDirectionProbe
from probing.probes._logistic import LogisticProbe
from probing.probes._neural import AttentionProbe, MLPProbe, NeuralProbe
from probing.probes._ridge import RidgeProbe

_CLASSES: dict[str, type[Probe]] = {
    cls.__name__: cls
    for cls in (LogisticProbe, RidgeProbe, MeanDifferenceProbe, PrincipalDirectionProbe, MLPProbe, AttentionProbe)
}


def describe_probe(probe: Probe) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Describe a fitted probe.

    Returns:
        What :func:`restore_probe` needs: its class, options and shape, as JSON; and its arrays by name.

    Raises:
        ValueError: A probe of another class than those of this package.
    """
    check_is_fitted(probe)
    name = type(probe).__name__
    if _CLASSES.get(name) is not type(probe):
        raise ValueError(f"Got a {name}, expected one of {', '.join(_CLASSES)}; only these can be kept.")
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in probe.get_params().items()}
    options.pop("device", None)
    described = {"class": name, "options": options}
    if isinstance(probe, NeuralProbe):
        arrays = {f"network.{key}": value.numpy() for key, value in probe.network_.state_dict().items()}
        return described | {"shape": list(probe.shape_)}, {"mean": probe.mean_, "scale": probe.scale_, **arrays}
    assert isinstance(probe, LinearProbe)
    return described | {"shape": [probe.n_features_in_]}, {"coef": np.asarray(probe.coef_, dtype=np.float64)}


def restore_probe(described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Probe:
    """Make a fitted probe again from :func:`describe_probe`'s result; it scores, and cannot be refitted elsewhere.

    Raises:
        ValueError: An unknown class or option, or arrays that are missing, of another shape, or not finite.
    """
    cls = _CLASSES.get(str(described.get("class")))
    if cls is None:
        raise ValueError(f"Got a head of class {described.get('class')!r}, expected one of {', '.join(_CLASSES)}.")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"Got a head whose {name} is not finite.")
    try:
        probe = cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in described["options"].items()})
        shape = tuple(int(size) for size in described["shape"])
        if isinstance(probe, NeuralProbe):
            _restore_network(probe, shape, arrays)
        else:
            assert isinstance(probe, LinearProbe)
            probe.coef_, probe.n_features_in_ = arrays["coef"], len(arrays["coef"])
            if probe.coef_.shape != shape:
                raise ValueError(f"Got coefficients of shape {probe.coef_.shape}, expected {shape}.")
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"The head does not fit its description ({type(error).__name__}: {error}).") from error
    return probe


def _restore_network(probe: NeuralProbe, shape: tuple[int, ...], arrays: Mapping[str, np.ndarray]) -> None:
    import torch

    probe.shape_, probe.n_features_in_ = shape, int(np.prod(shape))
    probe.mean_, probe.scale_ = arrays["mean"], arrays["scale"]
    if not probe.mean_.shape == probe.scale_.shape == shape[-1:]:
        raise ValueError(f"Got a mean of shape {probe.mean_.shape}, expected {shape[-1:]}.")
    network = probe._head(shape)([torch.Generator().manual_seed(0) for _ in range(probe.seeds)])
    network.load_state_dict(
        {
            name.removeprefix("network."): torch.from_numpy(np.array(value))
            for name, value in arrays.items()
            if name.startswith("network.")
        }
    )
    probe.network_ = network.eval()
