"""HTML reports, their plots and analyses of errors."""
