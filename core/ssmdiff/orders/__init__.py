"""Scan orders and random streams, over numpy alone."""
