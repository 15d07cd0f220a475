"""What ``vedette bench`` runs."""
