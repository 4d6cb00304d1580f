"""What the simulated services have in common, whoever's API they speak.

A vendor brings its endpoints (``_endpoints.Endpoint``) and its manners (``_vendors.Vendor``): headers, error
bodies, ids. Keys, latency, limits, faults, the journal and HTTP itself are here.
"""

from __future__ import annotations
