"""PyTorch models, one a file. Imported only to train and to export, never by the daemon."""
