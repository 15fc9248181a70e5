"""Mean Embeddings with Test-Time Data Augmentation (Ashukha et al., 2021)."""
