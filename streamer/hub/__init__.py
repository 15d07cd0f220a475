"""Events in, alerts out: the hub process."""
