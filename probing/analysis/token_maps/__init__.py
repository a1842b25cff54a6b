"""Token maps: a probe's reward as scores of image tokens."""

from probing.analysis.token_maps.experiment import (
    TokenMapSettings,
    measure_token_maps,
    options_token_maps,
    report_token_maps,
    run_token_maps,
)

__all__ = ["TokenMapSettings", "measure_token_maps", "options_token_maps", "report_token_maps", "run_token_maps"]
