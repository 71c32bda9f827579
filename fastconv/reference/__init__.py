"""The executable specification: every operation in NumPy, as plainly as possible, for any float dtype."""
