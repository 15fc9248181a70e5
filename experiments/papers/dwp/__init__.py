"""The Deep Weight Prior (Atanov et al., 2019)."""
