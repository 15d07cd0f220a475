"""What this project trained: model files with their cards. Package data, no code."""
