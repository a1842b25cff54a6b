"""What may be wrong with preference data: bad pictures, leaking splits, shortcuts to the choice."""

from probing.preferences.audit.findings import Audit, Finding, Severity
from probing.preferences.audit.looks import LOOKS, item_looks
from probing.preferences.audit.pictures import ScannedImages, scan_images
from probing.preferences.audit.run import audit

__all__ = ["LOOKS", "Audit", "Finding", "ScannedImages", "Severity", "audit", "item_looks", "scan_images"]
