"""How figures are shown: lines, a page, a plot, and the machine that they come from."""
