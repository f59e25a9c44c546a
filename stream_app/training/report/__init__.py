"""The report of a calibration: figures (pure), drawings of them, and the page that holds both."""
