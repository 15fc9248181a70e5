"""Training comparisons of classic convolutional networks and of hypernetworks."""
