"""How long a verdict takes: the graph, the engine, the station, and models of other packages."""
