"""Vedette's runtime: cameras become frames, frames become tracks and alerts, alerts reach everyone once."""
