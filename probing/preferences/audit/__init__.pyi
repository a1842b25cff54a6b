from .findings import Audit, Finding, Severity
from .image_stats import IMAGE_STATS, item_image_stats
from .run import audit
from .scan import ScannedImages, scan_images

__all__ = ["IMAGE_STATS", "Audit", "Finding", "ScannedImages", "Severity", "audit", "item_image_stats", "scan_images"]
