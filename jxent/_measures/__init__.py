"""A batch as metrics and calibration see it: its rows, and what is known of each."""
