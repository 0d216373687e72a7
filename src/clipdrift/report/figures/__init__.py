"""Figures of the report as plotly data, one question a file; colours are tokens of the palette."""
