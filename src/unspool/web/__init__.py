"""The web page: what `unspool serve` answers, and who may ask."""
