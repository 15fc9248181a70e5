"""Ponder maps as saliency: the paper's Table 2, and photographs with human fixations."""
