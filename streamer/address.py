"""Who can reach an address: this machine alone, or others."""

from __future__ import annotations

import ipaddress


def is_loopback_host(host: str) -> bool:
    """Whether only this machine reaches ``host``, an address or a name. Of names only ``localhost`` is trusted:
    any other may be resolved to anything, later and by somebody else."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
