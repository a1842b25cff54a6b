"""Find what may be wrong with preference data: bad pictures, leaks between splits, shortcuts to the choice."""

from probing.preferences.audit.findings import Audit, Finding, Severity
from probing.preferences.audit.image_stats import IMAGE_STATS, item_image_stats
from probing.preferences.audit.run import audit
from probing.preferences.audit.scan import ScannedImages, scan_images

__all__ = ["IMAGE_STATS", "Audit", "Finding", "ScannedImages", "Severity", "audit", "item_image_stats", "scan_images"]
