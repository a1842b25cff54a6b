"""What may be wrong with preference data: bad pictures, leaking splits, shortcuts to the choice."""

from probing.preferences.audit.findings import Audit, Finding, Severity
from probing.preferences.audit.image_stats import IMAGE_STATS, item_image_stats
from probing.preferences.audit.pictures import ScannedImages, scan_images
from probing.preferences.audit.run import audit

__all__ = ["IMAGE_STATS", "Audit", "Finding", "ScannedImages", "Severity", "audit", "item_image_stats", "scan_images"]
