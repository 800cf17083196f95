"""Language models: the base class, the context of a request, and a responder by rule."""
