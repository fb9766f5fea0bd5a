"""Objective speech quality and rate-quality reports."""
