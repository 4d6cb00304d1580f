"""What the simulated services have in common, whosever API they speak.

A vendor brings its endpoints (``_endpoints.Endpoint``) and its manners (``_vendors.Vendor``): headers, error
bodies, ids. Keys, latency, limits, faults, the journal and HTTP itself are here.
"""

from __future__ import annotations
