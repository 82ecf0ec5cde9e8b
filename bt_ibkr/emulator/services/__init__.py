"""The REST services, one package each: routes, handlers, and where needed state and bodies."""
