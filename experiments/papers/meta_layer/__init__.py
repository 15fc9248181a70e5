"""3-D convolutions, Meta layers and Meta heads in place of convolutions and dense layers."""
