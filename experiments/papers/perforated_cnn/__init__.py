"""PerforatedCNNs [figurnov2016]: convolutions evaluated at some positions, copies elsewhere."""
