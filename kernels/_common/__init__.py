"""What both operations share."""
