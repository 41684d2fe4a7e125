"""How other systems keep the parameters and the states of cells: a module for each family."""
