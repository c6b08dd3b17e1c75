"""Timing ourselves beside what people would use instead."""
