"""Pure: policies, calibration, certification, pruning. No I/O, no clock, no client library."""
