"""Token maps against people's heat maps."""

from probing.analysis.heat_maps.experiment import (
    HeatMapSettings,
    measure_heat_maps,
    options_heat_maps,
    report_heat_maps,
    run_heat_maps,
)

__all__ = ["HeatMapSettings", "measure_heat_maps", "options_heat_maps", "report_heat_maps", "run_heat_maps"]
